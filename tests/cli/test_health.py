"""`toril worker --health` and `toril check`: what probes are told."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.patience import until
from toril.embedded import EmbeddedServer

from .conftest import Start, Toril, in_thread
from .test_worker import Log

APP = """
import asyncio, os, time
from toril import Queue, Worker

parcels = Queue("parcels", prefix=os.environ["APP_PREFIX"])
letters = Queue("letters", prefix=os.environ["APP_PREFIX"])

@parcels.processor("slow", attempts=1)
async def slow() -> None:
    await asyncio.sleep(60)

@letters.processor("read")
async def read() -> None: ...

both = [Worker(parcels, concurrency=3, name="p1", grace=2), letters]
"""


class Probe:
    def __init__(self, address: str) -> None:
        self.address = address
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    def get(self, path: str, method: str = "GET") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text.startswith(b"{") else text
        finally:
            connection.close()


class Running(Probe):
    """A `toril worker` that answers probes."""

    def __init__(self, log: Log) -> None:
        log.wait_for("health: http://")
        (line,) = [line for line in log.lines if "health: http://" in line]
        found = re.search(r"http://([0-9.]+:\d+)/healthz", line)
        assert found is not None
        super().__init__(found[1])
        self.log = log


@pytest.fixture
def worker(server_url: str, prefix: str, start: Start, tmp_path: Path) -> Running:
    (tmp_path / "app.py").write_text(APP)
    log = Log(
        start("worker", "app:both", TORIL_URL=server_url, APP_PREFIX=prefix, TORIL_HEALTH="127.0.0.1:0")
    )
    log.wait_for("ready, concurrency", count=2)
    return Running(log)


def test_probes_are_told_how_each_worker_does(worker: Running) -> None:
    """Both paths, in full, and without a body for HEAD."""
    for path in ("/healthz", "/readyz"):
        status, answer = worker.get(path)
        assert status == 200
        assert (answer["is_alive"], answer["is_ready"]) == (True, True)
        assert [(one["queue"], one["worker"], one["state"]) for one in answer["workers"]] == [
            ("parcels", "p1", "ok"),
            ("letters", None, "ok"),
        ]
        assert abs(answer["workers"][0]["clock_offset_ms"]) < 1000
        assert worker.get(path, "HEAD") == (200, b"")


def test_nothing_else_is_served(worker: Running) -> None:
    """With --health, other paths and verbs are refused, and rubbish hurts nobody."""
    assert worker.get("/")[0] == 404
    assert worker.get("/../etc/passwd")[0] == 404
    assert worker.get("/healthz", "POST")[0] == 501
    with socket.create_connection((worker.host, worker.port)) as rude:
        rude.sendall(b"\0\xff rubbish\r\n\r\n")
    with socket.create_connection((worker.host, worker.port)) as silent:
        assert worker.get("/healthz")[0] == 200
        silent.sendall(b"GET ")
    assert worker.get("/healthz")[0] == 200
    assert "Traceback" not in "".join(worker.log.lines)


def test_who_keeps_many_connections_gets_no_more(worker: Running) -> None:
    """The worker's threads and files are its own; and who is silent is hung up on, so that others are answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(socket.create_connection((worker.host, worker.port)))
        with socket.create_connection((worker.host, worker.port), timeout=2) as one_more:
            assert one_more.recv(1) == b""
    assert worker.get("/healthz")[0] == 200


def test_check_says_it_in_a_line_for_each_worker(worker: Running, toril: Toril) -> None:
    """And as JSON; the address is an argument or the variable."""
    answer = toril("check", worker.address)
    assert (answer.code, answer.out) == (
        0,
        "parcels: ok, 0 of 3 jobs running\nletters: ok, 0 of 1 jobs running\n",
    )
    answer = toril("check", worker.address, "--ready", "--json")
    assert answer.code == 0
    assert [(one["queue"], one["state"]) for one in answer.json["workers"]] == [
        ("parcels", "ok"),
        ("letters", "ok"),
    ]


def test_check_reads_the_workers_own_variable(
    worker: Running, toril: Toril, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that one line in a container's environment serves both."""
    monkeypatch.setenv("TORIL_HEALTH", worker.address)
    assert toril("check").code == 0


async def test_a_worker_that_stops_is_alive_and_not_ready(worker: Running, toril: Toril) -> None:
    """So it gets no more work, and is not killed before its jobs have had their time."""
    assert (await in_thread(toril, "job", "add", "parcels", "slow")).code == 0
    await until("a running job", lambda: worker.get("/healthz")[1]["workers"][0]["running"] == 1)
    worker.log.process.send_signal(signal.SIGTERM)
    await until("the stop", lambda: worker.get("/healthz")[1]["workers"][0]["state"] == "stopping")
    assert worker.get("/healthz")[0] == 200
    assert worker.get("/readyz")[0] == 503
    answer = await in_thread(toril, "check", worker.address, "--ready")
    assert answer.code == 1
    assert "parcels: stopping, 1 of 3 jobs running" in answer.out
    assert worker.log.end() == 0


def test_a_server_that_is_away_is_told(start: Start, tmp_path: Path, toril: Toril) -> None:
    """Its worker is alive, takes no part, and says why."""
    (tmp_path / "app.py").write_text(APP)
    with EmbeddedServer() as server:
        url = server.url
    log = Log(start("worker", "app:both", "--health", "127.0.0.1:0", "--url", url, APP_PREFIX="bull"))
    worker = Running(log)
    log.wait_for("connecting")
    assert worker.get("/healthz")[0] == 200
    assert worker.get("/readyz")[0] == 503
    assert "letters: starting, waiting for the server's first answer" in toril("check", worker.address).out
    log.process.send_signal(signal.SIGTERM)
    assert log.end() == 0


def test_a_frozen_worker_answers_nothing(
    worker: Running, toril: Toril, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks gives up after a while."""
    monkeypatch.setattr("toril.cli.health._PATIENCE", 0.5)
    os.kill(worker.log.process.pid, signal.SIGSTOP)
    try:
        answer = toril("check", worker.address)
    finally:
        os.kill(worker.log.process.pid, signal.SIGCONT)
    assert answer.code == 3
    assert f"no worker answers at {worker.address}: timed out" in answer.err


@pytest.fixture
def stranger() -> Iterator[str]:
    """Somebody else's web server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"is_alive": true}')

        def log_message(self, format: str, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_check_is_not_fooled(toril: Toril, stranger: str) -> None:
    """Nobody there, or somebody else: no connection. No address: usage."""
    answer = toril("check", stranger)
    assert answer.code == 3
    assert "what answers is no worker" in answer.err
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    answer = toril("check", nobody, "--json")
    assert answer.code == 3
    assert answer.json["exit_code"] == 3
    assert toril("check").code == 2


@pytest.mark.parametrize("address", ["8080", "localhost", ":8080", "localhost:99999", "a@b:80", "h:1/x", ""])
def test_an_address_that_is_none_is_refused(toril: Toril, address: str) -> None:
    """By both, with one that is."""
    answer = toril("check", address)
    assert answer.code == 2
    assert "127.0.0.1:8080" in answer.err


def test_a_port_that_is_taken_is_refused_at_the_start(
    start: Start, stranger: str, tmp_path: Path, prefix: str
) -> None:
    """A worker that nobody can probe would be restarted for ever, for no reason that anybody sees."""
    (tmp_path / "app.py").write_text(APP)
    process = start("worker", "app:both", "--health", stranger, APP_PREFIX=prefix)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert f"--health {stranger}: cannot listen there: Address already in use" in err


def test_a_host_that_is_none_is_refused_at_the_start(start: Start, tmp_path: Path, prefix: str) -> None:
    """Also one that no resolver is asked for."""
    (tmp_path / "app.py").write_text(APP)
    process = start("worker", "app:both", "--health", "a..b:80", APP_PREFIX=prefix)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "--health a..b:80: cannot listen there: " in err
    assert "Traceback" not in err
