"""`toril server`: a real server in the foreground."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

from .conftest import Start


def started(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read what it tells with --json."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return dict(json.loads(text))
    raise AssertionError(f"it did not start: {text} {process.communicate()[1]}")


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> int:
    process.send_signal(number)
    return process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_runs_until_ctrl_c(start: Start) -> None:
    """It answers at the address that it prints, stops on SIGINT with 0, and leaves nothing behind."""
    process = start("server", "--json")
    told = started(process)
    with redis.Redis.from_url(told["url"]) as client:
        assert client.ping()
    assert told["persistence"] == "none"
    assert stop(process) == 0
    assert not Path(told["dir"]).exists()


def test_it_tells_people_where_it_is(start: Start) -> None:
    """Without --json: address, what is kept, where, and how to stop it."""
    port = free_port()
    process = start("server", "--port", str(port), PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    assert f"redis://127.0.0.1:{port}" in lines[0]
    assert "in memory" in lines[1]
    assert "Ctrl-C" in lines[3]
    assert stop(process, signal.SIGTERM) == 0
    assert "Stopped." in process.stdout.read()


def test_data_is_kept_between_runs(start: Start, tmp_path: Path) -> None:
    """With --dir the next run finds what the last one stored."""
    for expected in (None, "1"):
        process = start("server", "--dir", str(tmp_path / "data"), "--json")
        told = started(process)
        assert told["persistence"] == "aof"
        with redis.Redis.from_url(told["url"], decode_responses=True) as client:
            assert client.get("a") == expected
            client.set("a", "1")
        assert stop(process) == 0


def test_persistence_without_a_directory_has_a_place_of_its_own(start: Start, tmp_path: Path) -> None:
    """--persistence alone keeps the data in the user's data directory."""
    process = start("server", "--persistence", "rdb", "--json", XDG_DATA_HOME=str(tmp_path))
    told = started(process)
    assert Path(told["dir"]) == tmp_path / "toril" / "rdb"
    assert stop(process) == 0
    assert (tmp_path / "toril" / "rdb" / "dump.rdb").exists() or not process.poll()


def test_a_busy_port_is_a_problem(start: Start) -> None:
    """A port that was asked for and is taken: exit code 1, and the port is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("server", "--port", str(port))
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"port {port} is busy" in err


def test_the_usual_port_is_not_insisted_on(start: Start) -> None:
    """Where 6379 is taken, a free port is used and the variable for the others is printed."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Another test may hold it for a moment, and let go of it just when our server starts; whoever holds it
        # for longer is as good as we are.
        until = time.monotonic() + 15
        while True:
            try:
                taken.bind(("127.0.0.1", 6379))
                taken.listen()
                break
            except OSError:
                if time.monotonic() > until:
                    break
                time.sleep(0.05)
        process = start("server", PYTHONUNBUFFERED="1")
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
    assert "6379" not in lines[0]
    assert "export TORIL_URL=redis://127.0.0.1:" in lines[1]
    assert stop(process) == 0


def test_signals_may_come_at_any_moment(start: Start) -> None:
    """Also in the middle of the handler of the one before, and of the waiting for them."""
    process = start("server", "--json")
    started(process)
    for _ in range(300):
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_a_server_that_is_killed_ends_the_command(start: Start) -> None:
    """If the server goes, the command does not pretend: exit code 1, and what the server has said last."""
    process = start("server", "--json")
    os.kill(int(started(process)["pid"]), signal.SIGKILL)
    assert process.wait(20) == 1
    assert process.stdout is not None
    assert "Ready to accept connections" in json.loads(process.stdout.read())["error"]


def test_flags_have_variables(start: Start, tmp_path: Path) -> None:
    """TORIL_PORT, TORIL_DIR and TORIL_PERSISTENCE stand for the flags."""
    port = free_port()
    process = start(
        "server",
        TORIL_PORT=str(port),
        TORIL_DIR=str(tmp_path / "d"),
        TORIL_PERSISTENCE="none",
        TORIL_JSON="1",
    )
    told = started(process)
    assert (told["url"], told["persistence"]) == (f"redis://127.0.0.1:{port}", "none")
    assert stop(process) == 0
