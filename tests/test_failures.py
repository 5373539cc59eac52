"""What a worker's log says of failures: the kind and the place, never what the error said."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable

import pytest

from tests.patience import ended
from tests.test_queue import unused_port
from toril import Job, Queue, UnrecoverableError, Worker
from toril._failures import kind_and_place


async def test_a_job_that_failed_for_good_is_a_warning_with_a_place(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has set up no logging sees it too, and learns which command tells the rest."""

    async def process(job: Job) -> None:
        raise ValueError(f"no such address: {job.data['to']}")

    job = await queue.add("welcome", {"to": "ada@example.com"}, attempts=1)
    with caplog.at_level(logging.WARNING, "toril.worker"):
        async with Worker(queue, process):
            await ended(job)
    (warning,) = [record.getMessage() for record in caplog.records if ": failed" in record.getMessage()]
    assert "(welcome) in 'tests': failed (ValueError at test_failures.py:" in warning
    assert " in process)" in warning
    assert f"`toril job show tests {job.id} --prefix {queue.prefix}`" in warning
    assert "ada" not in warning


def raised(function: Callable[[], object]) -> str:
    try:
        function()
    except Exception as error:
        return traceback.format_exc().replace(f", in {raised.__name__}", ", in begin") or str(error)
    raise AssertionError


def broken_json() -> None:
    json.loads("{secret")


def chained() -> None:
    try:
        broken_json()
    except ValueError as error:
        raise RuntimeError("password: hunter2\nother: x") from error


def group() -> None:
    raise ExceptionGroup("many", [ValueError("a"), KeyError("b")])


def hopeless() -> None:
    raise UnrecoverableError


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        # The last line of the program's own, not the library's that noticed.
        (broken_json, "json.decoder.JSONDecodeError"),
        (chained, "RuntimeError"),
        (group, "ExceptionGroup"),
        (hopeless, "UnrecoverableError"),
    ],
)
def test_kind_and_place_are_read_from_a_stack_trace(function: Callable[[], None], kind: str) -> None:
    """As Python prints it."""
    told = kind_and_place(raised(function))
    assert told.startswith(f"{kind} at test_failures.py:")
    assert told.endswith(f" in {function.__name__}")


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        ("", ""),
        ("TimeoutError: timed out after 3 s", "TimeoutError"),
        ("Error: it\n    at process (/app/worker.js:3:9)", "Error"),
        ("no trace at all", ""),
    ],
)
def test_what_is_no_trace_of_python_tells_less(trace: str, told: str) -> None:
    """Of other clients, or of errors that no code raised."""
    assert kind_and_place(trace) == told


async def test_who_never_reached_the_server_was_never_ready(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that is stopped while it tries says that it stopped, and nothing else."""
    worker = Worker("tests", lambda job: None, connection=f"redis://127.0.0.1:{unused_port()}")
    told: list[str] = []
    worker.on("ready", lambda: told.append("ready"))
    worker.on("error", lambda error: worker.stop())
    with caplog.at_level(logging.INFO, "toril.worker"):
        async with asyncio.timeout(15):
            await worker.run(handle_signals=False)
    assert told == []
    assert "ready" not in caplog.text
    assert "stopped" in caplog.text
