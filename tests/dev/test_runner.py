"""`python -m dev`: starts everything, watches over it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from redis import Redis

from dev.testing import Running, running

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the runner needs Linux or macOS"),
    # The ports are the usual ones, if free: two runners at a time would only get in each other's way.
    pytest.mark.xdist_group("dev-runner"),
]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("dev") / "run") as runner:
        yield runner


def fetch(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.status, response.read().decode()


def test_everything_answers_where_the_table_says(runner: Running) -> None:
    """Platform, mail page, Redis and MongoDB; each process has a log."""
    description = runner.description
    assert fetch(description["platform"])[0] == 200
    assert "Mail catcher" in fetch(description["mail"])[1]
    with Redis.from_url(description["redis"]) as redis:
        assert redis.ping()
    with MongoClient[dict[str, Any]](description["mongo"], serverSelectionTimeoutMS=5000) as mongo:
        assert mongo.admin.command("hello")["isWritablePrimary"]
    assert set(runner.pids) == {"valkey", "mongodb", "mail", "api", "relay", "workers"}
    for name in ("platform", "mail", "redis", "mongo"):
        assert description[name] in runner.output
    for account in description["accounts"]:
        assert account["email"] in runner.output
    for name in ("valkey", "mongodb", "mail", "api", "relay", "workers"):
        assert (runner.dir / "logs" / f"{name}.log").exists()


def test_the_demonstration_has_people_to_sign_in_as(runner: Running) -> None:
    """At least a manager and a pharmacist, with a password each."""
    accounts = runner.description["accounts"]
    assert len(accounts) >= 2
    assert all(account["email"] and account["password"] and account["who"] for account in accounts)


def test_colours_are_for_terminals(runner: Running) -> None:
    """Into a file goes plain text."""
    assert "\x1b" not in runner.output


def test_a_second_runner_says_where_the_first_is(runner: Running) -> None:
    """It starts nothing, and ends with 1."""
    second = subprocess.run(
        [sys.executable, "-m", "dev", "--dir", runner.dir],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert "already runs" in second.stdout
    assert runner.description["platform"] in second.stdout
    assert fetch(runner.description["platform"])[0] == 200


def test_status_prints_the_table(runner: Running, tmp_path: Path) -> None:
    """Of what runs; elsewhere it says that nothing does, and ends with 1."""
    command = [sys.executable, "-m", "dev", "status", "--dir"]
    here = subprocess.run([*command, runner.dir], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert here.returncode == 0
    assert runner.description["mail"] in here.stdout
    nowhere = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert nowhere.returncode == 1
    assert "make run" in nowhere.stdout


@pytest.mark.parametrize("name", ["api", "relay", "workers", "mail", "valkey", "mongodb"])
def test_what_is_killed_comes_back(runner: Running, name: str) -> None:
    """A killed process is started again, the runner says so, and the platform answers afterwards."""
    before = runner.pids[name]
    os.kill(before, signal.SIGKILL)
    runner.wait_for_another(name, before)
    assert fetch(runner.description["platform"])[0] == 200


def test_a_request_during_a_restart_of_the_api_is_answered(runner: Running) -> None:
    """Nobody is refused: the port stays open while the process behind it is replaced."""
    for _ in range(3):
        before = runner.pids["api"]
        os.kill(before, signal.SIGKILL)
        assert fetch(runner.description["platform"])[0] == 200
        runner.wait_for_another("api", before)


def test_an_interrupt_stops_all_and_a_restart_keeps_data(
    tmp_path: Path, wait_until_gone: Callable[..., None]
) -> None:
    """All processes are gone within seconds; the next run finds what the last one left."""
    with running(tmp_path / "run") as first:
        pids = list(first.pids.values())
        with Redis.from_url(first.description["redis"]) as redis:
            redis.set("kept", "1")
        with MongoClient[dict[str, Any]](first.description["mongo"]) as mongo:
            mongo.dev_test.things.insert_one({"_id": 1})
        began = time.monotonic()
        assert first.interrupt() == 0
        assert time.monotonic() - began < 15
    wait_until_gone(*pids)
    assert not (tmp_path / "run" / "running.json").exists()

    with running(tmp_path / "run") as second:
        with Redis.from_url(second.description["redis"], decode_responses=True) as redis:
            assert redis.get("kept") == "1"
        with MongoClient[dict[str, Any]](second.description["mongo"]) as mongo:
            assert mongo.dev_test.things.count_documents({}) == 1


def test_busy_ports_are_replaced_and_named(tmp_path: Path) -> None:
    """Where the usual ports are taken, free ones are used, and the table says so."""
    taken: list[socket.socket] = []
    try:
        for port in (8000, 8025, 1025, 6379, 27017):
            try:
                taken.append(socket.create_server(("127.0.0.1", port)))
            except OSError:  # Taken by somebody else, which serves as well.
                continue
        with running(tmp_path / "run") as runner:
            description = runner.description
            assert fetch(description["platform"])[0] == 200
            for port in (8000, 8025, 1025, 6379, 27017):
                assert f"Port {port} is busy" in runner.output
                assert not any(
                    f":{port}" in str(value) for name, value in description.items() if name != "notes"
                )
    finally:
        for each in taken:
            each.close()


def test_a_wanted_port_that_is_busy_is_an_error(tmp_path: Path) -> None:
    """A port that was asked for is not silently replaced; nothing stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runner = Running(tmp_path / "run", "--port", str(port))
        assert runner.process.wait(60) == 1
        assert f"cannot listen on 127.0.0.1:{port}" in runner.output


def test_a_killed_runner_leaves_nothing_behind(tmp_path: Path, wait_until_gone: Callable[..., None]) -> None:
    """Not even kill -9 orphans a process, and the next run starts on what is left."""
    if sys.platform != "linux":
        pytest.skip("the kernel ends orphans on Linux only")
    with running(tmp_path / "run") as runner:
        pids = list(runner.pids.values())
        runner.process.kill()
        runner.process.wait(30)
        status = subprocess.run(
            [sys.executable, "-m", "dev", "status", "--dir", runner.dir], cwd=ROOT, timeout=30, check=False
        )
        assert status.returncode == 1
        # At once, while the last ones are still on their way out.
        with running(tmp_path / "run") as second:
            assert fetch(second.description["platform"])[0] == 200
        wait_until_gone(*pids)


def test_an_interrupt_during_the_start_stops_it(tmp_path: Path) -> None:
    """Nothing stays behind, whatever had been started by then."""
    for moment in (0.2, 0.6, 1.2):
        runner = Running(tmp_path / "run")
        time.sleep(moment)
        runner.interrupt()
        assert _left_behind(tmp_path / "run") == [], runner.output


def test_a_second_interrupt_kills_at_once(tmp_path: Path, wait_until_gone: Callable[..., None]) -> None:
    """Whoever cannot wait does not have to."""
    with running(tmp_path / "run") as runner:
        pids = list(runner.pids.values())
        os.kill(runner.pids["workers"], signal.SIGSTOP)  # It will not answer the first one.
        runner.process.send_signal(signal.SIGINT)
        runner.wait_for(lambda: "Stopping" in runner.output, "the first interrupt's effect")
        began = time.monotonic()
        assert runner.interrupt() == 130
        assert time.monotonic() - began < 2
    wait_until_gone(*pids)


def test_a_server_that_cannot_be_reached_is_explained(tmp_path: Path) -> None:
    """The message names the setting; what had been started is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    url = f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=500"
    runner = Running(tmp_path / "run", MONGODB_URL=url)
    assert runner.process.wait(60) == 1
    assert "MONGODB_URL is set, but no server answers there" in runner.output
    assert _left_behind(tmp_path / "run") == []


def test_a_program_that_does_not_start_is_explained(tmp_path: Path) -> None:
    """After three tries it is given up; the message has the last lines of its log."""
    runner = Running(tmp_path / "run", ENVIRONMENT="no-such")
    assert runner.process.wait(60) == 1
    assert "Not started." in runner.output
    assert "ENVIRONMENT" in runner.output.upper()
    assert _left_behind(tmp_path / "run") == []


def test_without_workers_the_platform_works(tmp_path: Path) -> None:
    """The API needs no worker."""
    with running(tmp_path / "run", "--without-workers") as runner:
        assert "workers" not in runner.pids
        assert fetch(runner.description["platform"])[0] == 200


def _left_behind(dir: Path) -> list[str]:
    """The command lines of processes that name the directory."""
    lines = map(_command_line, Path("/proc").glob("[0-9]*"))
    return [line for line in lines if str(dir) in line]


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""
