"""Every program in examples/ runs as its first lines say, on a server of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toril.embedded import EmbeddedServer
from toril.errors import ConfigurationError

from .programs import DEADLINE, Running

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NODE_MODULES = ROOT / "interop" / "node_modules"


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


def run(program: Path, url: str, *arguments: str, warns: str = "") -> str:
    """Run a program to its end, and return what it printed."""
    done = subprocess.run(
        [*command(program), *arguments],
        env={**os.environ, "TORIL_URL": url},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, f"{program.name} exited with {done.returncode}:\n{done.stderr}"
    complaints = [line for line in done.stderr.splitlines() if not warns or warns not in line]
    assert complaints == [], f"{program.name} complained:\n{done.stderr}"
    return done.stdout


def say_hello(producer: Path, worker: Path, url: str) -> None:
    """A producer adds a job and leaves; a worker runs it. Neither knows the other, only the server."""
    with Running(command(worker), url) as running:
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
    with Running(command(EXAMPLES / "hello" / "worker.py"), url) as running:
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
    assert run(EXAMPLES / "retry.py", url, warns="failed (UnrecoverableError at retry.py:").splitlines() == [
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
