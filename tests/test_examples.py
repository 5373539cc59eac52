"""Every program in examples/ runs as its first lines say, on a server of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from toril.embedded import EmbeddedServer
from toril.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NODE_MODULES = ROOT / "interop" / "node_modules"
DEADLINE = 60.0
"""Seconds for one program or one line; a loaded machine may need some of it."""


@pytest.fixture
def url() -> Iterator[str]:
    """A server of the test's own: examples use the prefix that everybody uses, and number their jobs from 1."""
    try:
        with EmbeddedServer() as server:
            yield server.url
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.fixture
def node_hello(tmp_path: Path) -> Path:
    """A copy of the hello programs beside the packages of interop/, where `import "bullmq"` finds them."""
    if shutil.which("node") is None:
        pytest.skip("node is not on the PATH; the examples with BullMQ need Node.js 20+")
    if not (NODE_MODULES / "bullmq").is_dir():
        pytest.skip("BullMQ is not installed: npm ci --prefix interop")
    for program in (EXAMPLES / "hello").glob("*.mjs"):
        shutil.copy(program, tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    return tmp_path


def command(program: Path) -> list[str]:
    return ["node", str(program)] if program.suffix == ".mjs" else [sys.executable, "-u", str(program)]


def run(program: Path, url: str, *arguments: str) -> str:
    """Run a program to its end, and return what it printed."""
    done = subprocess.run(
        [*command(program), *arguments],
        env={**os.environ, "TORIL_URL": url},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, f"{program.name} exited with {done.returncode}:\n{done.stderr}"
    assert done.stderr == "", f"{program.name} complained:\n{done.stderr}"
    return done.stdout


class Running:
    """A program in the background, whose lines can be waited for; SIGTERM ends it, in good order or the test fails."""

    def __init__(self, program: Path, url: str) -> None:
        self._name = program.name
        self._process = subprocess.Popen(
            command(program),
            env={**os.environ, "TORIL_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_over = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait_for(self, start: str) -> None:
        """Wait until a line begins like this."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or any(line.startswith(start) for line in self._lines), DEADLINE
            )
            assert any(line.startswith(start) for line in self._lines), (
                f"{self._name} never printed {start!r}, but:\n" + "\n".join(self._lines)
            )

    @property
    def lines(self) -> list[str]:
        with self._changed:
            return list(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if kind is None:
            assert code == 0, f"{self._name} exited with {code} after SIGTERM:\n" + "\n".join(self.lines)


def say_hello(producer: Path, worker: Path, url: str) -> None:
    """A producer adds a job and leaves; a worker runs it. Neither knows the other, only the server."""
    with Running(worker, url) as running:
        running.wait_for("waiting for jobs")
        # Once as it comes, once with an address of the caller's.
        assert run(producer, url) == "job 1 added\n"
        assert run(producer, url, "ada@example.com") == "job 2 added\n"
        running.wait_for("job 1 completed")
        running.wait_for("job 2 completed")
    assert running.lines == [
        "waiting for jobs; Ctrl-C to stop",
        "job 1 active: send-email",
        "job 1 completed: 'Hello world' sent to umair@example.com",
        "job 2 active: send-email",
        "job 2 completed: 'Hello world' sent to ada@example.com",
    ]


def test_hello_from_python_to_python(url: str) -> None:
    """Producer and worker are two programs: added in one, then active and completed in the other."""
    say_hello(EXAMPLES / "hello" / "producer.py", EXAMPLES / "hello" / "worker.py", url)


def test_hello_from_node_to_python(url: str, node_hello: Path) -> None:
    """A job that BullMQ adds in Node.js is run by a Python worker."""
    say_hello(node_hello / "producer.mjs", EXAMPLES / "hello" / "worker.py", url)


def test_hello_from_python_to_node(url: str, node_hello: Path) -> None:
    """A job that a Python producer adds is run by a BullMQ worker in Node.js."""
    say_hello(EXAMPLES / "hello" / "producer.py", node_hello / "worker.mjs", url)


def test_a_producer_needs_no_worker(url: str) -> None:
    """A job that is added while no worker is there is run when one comes."""
    assert run(EXAMPLES / "hello" / "producer.py", url) == "job 1 added\n"
    with Running(EXAMPLES / "hello" / "worker.py", url) as running:
        running.wait_for("job 1 completed")


def test_quickstart(url: str) -> None:
    """A typed job's result comes back to the producer."""
    assert run(EXAMPLES / "quickstart.py", url) == (
        "job 1 added\nthe manager knows that Umair wants shift 42\n"
    )


def test_quickstart_needs_no_server_of_ones_own() -> None:
    """With the URL that its first lines name, it brings its own server."""
    assert "the manager knows" in run(EXAMPLES / "quickstart.py", "embedded://")


def test_progress(url: str) -> None:
    """A listener hears the life of a job in order: added, waiting, active, its progress, completed."""
    assert [line.strip() for line in run(EXAMPLES / "progress.py", url).splitlines()] == [
        "added",
        "waiting",
        "active",
        "progress 25",
        "progress 50",
        "progress 75",
        "progress 100",
        "completed report-central.pdf",
        "log: page 1 written",
        "log: page 2 written",
        "log: page 3 written",
        "log: page 4 written",
    ]


def test_retry(url: str) -> None:
    """The wait doubles from attempt to attempt; what cannot be mended is tried once."""
    assert run(EXAMPLES / "retry.py", url).splitlines() == [
        "attempt 1 failed: the mail server is away; the next one in 200 ms",
        "attempt 2 failed: the mail server is away; the next one in 400 ms",
        "sent to umair@example.com by attempt 3",
        "job '2' failed: 'umair' is no address",
    ]


def test_delayed(url: str) -> None:
    """A promoted job runs at once, the other one when its time has come and not before."""
    states, promoted, due = run(EXAMPLES / "delayed.py", url).splitlines()

    assert states == "job 1 delayed, job 2 delayed"
    assert promoted == "shift 2 begins soon (promoted)"
    waited = re.fullmatch(r"shift 1 begins soon \(after (\d+\.\d) s\)", due)
    assert waited is not None
    assert float(waited[1]) >= 1.0


def test_every_example_is_run_here() -> None:
    """No program in examples/ goes untested."""
    tests = Path(__file__).read_text()
    programs = [path.name for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".mjs")]

    assert programs
    assert [name for name in programs if f'"{name}"' not in tests] == []
