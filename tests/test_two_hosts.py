"""A producer on one host and a worker on another, which share only the server's address.

The hosts are network namespaces of Linux, each with a cable to a third one, where the server is. It is the setting of
`docs/how-to/windows-and-wsl2.md`: Windows here, WSL2 there, and TCP between them. Needs the rights of root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from toril.embedded import find_binary
from toril.errors import ConfigurationError

from .programs import DEADLINE, Running

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "hello"
PASSWORD = "a-closed-door"


@dataclass(frozen=True)
class Hosts:
    """Three hosts: `middle` has the server, `left` and `right` reach it and nothing else.

    Attributes:
        left_url: The server's address, seen from `left`.
        right_url: The same from `right`; there it is another one.
    """

    left: str
    middle: str
    right: str
    left_url: str
    right_url: str


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def on(host: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", host, *command]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("needs Linux and the program `ip`")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need the rights of root")
    try:
        binary = find_binary()
    except ConfigurationError as error:
        pytest.skip(str(error))
    mark = uuid.uuid4().hex[:6]
    left, middle, right = (f"toril-{mark}-{place}" for place in ("left", "mid", "right"))
    with ExitStack() as undo:
        try:
            for host in (left, middle, right):
                ip("netns", "add", host)
                # With the namespace go its ends of the cables.
                undo.callback(ip, "netns", "del", host)
                ip("-n", host, "link", "set", "lo", "up")
            for host, net in ((left, "10.213.1"), (right, "10.213.2")):
                end = f"t{mark}{net[-1]}"
                ip("link", "add", end, "netns", middle, "type", "veth", "peer", "name", "eth0", "netns", host)
                ip("-n", middle, "address", "add", f"{net}.1/24", "dev", end)
                ip("-n", host, "address", "add", f"{net}.2/24", "dev", "eth0")
                ip("-n", middle, "link", "set", end, "up")
                ip("-n", host, "link", "set", "eth0", "up")
        except OSError as error:
            pytest.skip(f"no network namespaces here: {error}")
        server = subprocess.Popen(
            on(
                middle,
                *(str(binary), "--port", "6379", "--bind", "0.0.0.0", "--requirepass", PASSWORD),
                *("--save", "", "--dir", str(tmp_path), "--logfile", str(tmp_path / "server.log")),
            )
        )
        undo.callback(end_process, server)
        urls = [f"redis://:{PASSWORD}@{net}.1:6379" for net in ("10.213.1", "10.213.2")]
        wait_until_answers(left, urls[0])
        yield Hosts(left, middle, right, *urls)


def end_process(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    # `ip netns exec` becomes the program, so this is its own process.
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_answers(host: str, url: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        done = subprocess.run(
            on(host, sys.executable, "-m", "toril.cli", "doctor", "--url", url, "--json"),
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, f"the server did not answer within {DEADLINE} s: {done.stdout}"


def test_producer_and_worker_on_two_hosts(hosts: Hosts) -> None:
    """A job that is added on one host is run on another that the first one cannot reach."""
    unreachable = subprocess.run(on(hosts.left, "ip", "route", "get", "10.213.2.2"), capture_output=True)
    assert unreachable.returncode != 0, "the two hosts reach each other, so the test would prove little"
    worker = on(hosts.right, sys.executable, "-u", str(EXAMPLES / "worker.py"))
    with Running(worker, hosts.right_url) as running:
        running.wait_for("waiting for jobs")
        added = subprocess.run(
            on(hosts.left, sys.executable, str(EXAMPLES / "producer.py")),
            env={**os.environ, "TORIL_URL": hosts.left_url},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert added.stdout == "job 1 added\n", added.stderr
        running.wait_for("job 1 completed: 'Hello world' sent to umair@example.com")


def test_doctor_tells_a_wrong_address_from_a_closed_door(hosts: Hosts) -> None:
    """From another host, `toril doctor` says what is wrong: nobody listens, or the password is missing."""

    def doctor(url: str) -> str:
        done = subprocess.run(
            on(hosts.left, sys.executable, "-m", "toril.cli", "doctor", "--url", url),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 3, done.stdout
        return done.stdout

    assert "nobody listens there" in doctor("redis://10.213.1.1:6380")
    assert "refuses the user name or password" in doctor("redis://10.213.1.1:6379")
