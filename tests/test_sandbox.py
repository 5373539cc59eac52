"""Sandboxed processors: they run in a child, say what they have to say, and die when they have to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests import sandboxed
from tests.patience import Heard, ended, until
from tests.programs import DEADLINE, is_running
from toril import (
    ConfigurationError,
    DelayedError,
    Job,
    JobFailedError,
    Queue,
    RateLimitError,
    SandboxError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
    Worker,
)
from toril.embedded import EmbeddedServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="asks for processes as POSIX does")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """Children do not speak to the server, so one kind of it is enough."""
    try:
        server = EmbeddedServer()
    except ConfigurationError as error:
        pytest.skip(str(error))
    with server:
        yield server


def sandbox(queue: Queue, function: Callable[..., Any], **options: Any) -> Any:
    return queue.processor(function.__name__, sandboxed=True, **options)(function)


async def test_typed_arguments_and_the_result_travel_as_json(server_url: str, prefix: str) -> None:
    """The child imports the module, and finds the decorated function there."""
    async with Queue("declared", connection=server_url, prefix=prefix) as queue:
        queue.processors["cover"] = sandboxed.cover
        job = await queue.add("cover", {"pharmacy": "north", "day": "2027-03-01"})
        bad = await queue.add("cover", {"pharmacy": "north", "day": "soon"}, attempts=3)
        async with Worker(queue):
            result, refused = await ended(job, bad)

    assert sandboxed.cover.timeout is None
    assert (result["pharmacy"], result["year"]) == ("north", date(2027, 3, 1).year)
    assert result["pid"] != os.getpid()
    assert "`day`" in refused.failed_reason


async def test_what_the_annotation_names_can_be_returned(queue: Queue) -> None:
    """As from a processor that runs in the worker itself."""
    job = await sandbox(queue, sandboxed.tags).add()
    async with Worker(queue):
        assert await ended(job) == [{"a", "b"}]


async def test_the_jobs_verbs_are_the_workers(queue: Queue) -> None:
    """Progress, log, data and questions go through the worker, which holds the lock; both kinds of job can ask."""
    ask = sandbox(queue, sandboxed.ask)
    plainly = sandbox(queue, sandboxed.talk_plainly)
    told: list[tuple[Callable[..., Any], list[Any]]] = [
        (Job.update_progress, [{"at": 50}]),
        (Job.log, ["hello"]),
        (Job.update_data, [{"step": 2}]),
        (Job.get_state, []),
        (Job.get_children_values, []),
        (Job.get_ignored_children_failures, []),
        (Job.get_dependencies_count, []),
    ]
    worker = Worker(queue, concurrency=2)
    heard = Heard(worker, "progress")
    job = await ask.options(attempts=3).add(verbs=[(verb.__name__, arguments) for verb, arguments in told])
    other = await plainly.add(to="all")
    async with worker:
        result, rows = await ended(job, other)
        await heard.wait(2)

    counts = {"processed": 0, "unprocessed": 0, "ignored": 0, "failed": 0}
    assert result["answers"] == [None, 1, None, "active", {}, {}, counts]
    assert result["knows"] == [job.id, "ask", {"step": 2}, {"at": 50}, 1, job.options.attempts]
    assert result["queue"] == queue.qualified_name
    assert rows == 1
    assert sorted(str(event[2]) for event in heard.told) == ["1", "{'at': 50}"]
    assert (await queue.get_job_logs(job.id)).logs == ["hello"]
    await job.refresh()
    assert (job.data, job.return_value) == ({"step": 2}, result)


async def test_what_is_raised_is_told_as_it_was_in_the_child(queue: Queue) -> None:
    """Reasons and traces are those of the child; listeners and strategies learn the type's name."""
    fall = sandbox(queue, sandboxed.fall)
    worker = Worker(queue)
    heard = Heard(worker, "retried")
    lost = await fall.options(attempts=2).add(how="down")
    quitting, hushed = await fall.add(how="quit"), await fall.add(how="hush")
    async with worker:
        results = await ended(lost, quitting, hushed)

    assert [result.failed_reason for result in results] == [
        "KeyError: 'down'",
        "the processor raised SystemExit: enough",
        "the processor raised KeyboardInterrupt",
    ]
    await lost.refresh()
    assert len(lost.stacktrace) == 2
    assert "sandboxed.py" in lost.stacktrace[0]
    assert "_sandbox" not in lost.stacktrace[0]
    ((_, _, error, _),) = heard.told
    assert isinstance(error, SandboxError)
    assert error.kind == "KeyError"


async def test_what_steers_is_raised_by_name(queue: Queue) -> None:
    """What a processor asks for by raising is done, and counts no attempt."""
    steer = sandbox(queue, sandboxed.steer)
    again = [DelayedError, WaitingError, WaitingChildrenError, RateLimitError]
    jobs = [await steer.options(attempts=3).add(how=kind.__name__) for kind in (*again, UnrecoverableError)]
    async with Worker(queue):
        *results, last = await ended(*jobs)

    assert results == [f"{kind.__name__} after 0" for kind in again]
    assert last.failed_reason == "UnrecoverableError"


async def test_a_processor_may_lose_patience_with_a_verb(queue: Queue) -> None:
    """The answer that nobody waits for any more is passed over; those after it arrive, and the child lives on."""
    lose_patience = sandbox(queue, sandboxed.lose_patience)
    first, second = await lose_patience.add(), await lose_patience.add()
    async with Worker(queue):
        assert await ended(first, second) == [2, 2]


async def test_a_child_is_handed_the_path_without_what_is_none(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs put a `Path` there, and Python passes it over."""
    monkeypatch.setattr(sys, "path", [*sys.path, ROOT])
    pid = sandbox(queue, sandboxed.pid)
    async with Worker(queue):
        assert await ended(await pid.add()) != [os.getpid()]


async def test_what_python_prints_as_it_starts_is_passed_over(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site's own start-up code writes to where the pipe is, before anybody could hinder it."""
    (tmp_path / "sitecustomize.py").write_text("print('Welcome to Python!\\n' * 100, flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pid = sandbox(queue, sandboxed.pid)
    async with Worker(queue):
        first, second = await ended(await pid.add(), await pid.add())

    assert first == second != os.getpid()


async def test_a_fork_does_not_hide_that_the_child_has_died(queue: Queue) -> None:
    """The job fails at once, although a process that its processor has made still runs, and held the same pipes."""
    leave_a_fork = sandbox(queue, sandboxed.leave_a_fork)
    async with Worker(queue):
        (died,) = await ended(await leave_a_fork.add())

    assert "killed by SIGKILL" in died.failed_reason


async def test_a_worker_whose_streams_are_closed_has_sandboxes(
    queue: Queue, server_url: str, tmp_path: Path
) -> None:
    """What a processor writes goes nowhere then, and least of all into the pipe to the worker."""
    program = tmp_path / "worker.py"
    program.write_text(
        "import asyncio, os\n"
        "from tests import sandboxed\n"
        "from toril import Queue, Worker\n"
        f"queue = Queue('tests', connection={server_url!r}, prefix={queue.prefix!r})\n"
        "queue.processor('shout', sandboxed=True)(sandboxed.shout)\n"
        "for number in (0, 1, 2):\n"
        "    os.close(number)\n"
        "asyncio.run(Worker(queue).run())\n"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env={**os.environ, "PYTHONPATH": path}
    )
    try:
        assert await ended(await queue.add("shout"), await queue.add("shout")) == ["said", "said"]
    finally:
        process.terminate()
        await process.wait()


async def test_a_crash_fails_one_job(queue: Queue) -> None:
    """The reason names the exit code or the signal; the next job has a new child."""
    fall = sandbox(queue, sandboxed.fall)
    fine = sandbox(queue, sandboxed.pid)
    jobs = [await fall.add(how="exit"), await fall.add(how="segfault"), await fine.add(), await fine.add()]
    async with Worker(queue):
        *crashed, one, other = await ended(*jobs)

    assert [crash.failed_reason for crash in crashed] == [
        "the processor's process ended with exit code 3",
        "the processor's process was killed by SIGSEGV",
    ]
    # A child is kept for the next job.
    assert one == other
    assert not is_running(one)


async def test_children_are_exchanged_after_so_many_jobs(queue: Queue) -> None:
    """`max_jobs_per_child` bounds what a child that leaks can leak; a dead idle child fails nobody."""
    fine = sandbox(queue, sandboxed.pid)
    jobs = [await fine.add() for _ in range(3)]
    async with Worker(queue, max_jobs_per_child=2):
        one, two, three = await ended(*jobs)
        os.kill(three, signal.SIGKILL)
        (four,) = await ended(await fine.add())

    assert one == two
    assert len({two, three, four}) == 3


async def test_an_endless_loop_is_timed_out(queue: Queue) -> None:
    """The child is killed; the job fails as any that takes too long, and can be tried again."""
    spin = sandbox(queue, sandboxed.spin, timeout=0.2)
    worker = Worker(queue)
    heard = Heard(worker, "progress")
    job = await spin.add()
    async with worker:
        (error,) = await ended(job)

    assert error.failed_reason == "timed out after 0.2 s"
    assert not is_running(heard.told[0][2])


async def test_a_cancelled_job_is_killed_whatever_it_does(queue: Queue) -> None:
    """Also one that ignores SIGTERM and lets no other thread run; what it has started dies too."""
    spin = sandbox(queue, sandboxed.spin)
    hold = sandbox(queue, sandboxed.hold)
    worker = Worker(queue, concurrency=2)
    heard = Heard(worker, "progress")
    jobs: list[Job[Any]] = [await spin.add(), await hold.add()]
    async with worker:
        await heard.wait(2)
        assert [worker.cancel_job(job.id, "too late") for job in jobs] == [True, True]
        errors = await ended(*jobs)

    pids = [told[2] for told in heard.told if isinstance(told[2], int)]
    pids += [pid for told in heard.told if isinstance(told[2], list) for pid in told[2]]
    assert len(pids) == 3
    assert [error.failed_reason for error in errors] == ["the job was cancelled: too late"] * 2
    assert all(isinstance(error, JobFailedError) for error in errors)
    await until("the end of the processes", lambda: not any(map(is_running, pids)))


async def test_a_worker_that_stops_hands_back(queue: Queue) -> None:
    """After the grace the child is dead and the job waits again, uncounted."""
    spin = sandbox(queue, sandboxed.spin)
    worker = Worker(queue, grace=0)
    heard = Heard(worker, "progress")
    job = await spin.add()
    async with worker:
        await heard.wait()

    assert not is_running(heard.told[0][2])
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("waiting", 0)


async def test_no_child_outlives_a_killed_worker(queue: Queue, server_url: str, tmp_path: Path) -> None:
    """After kill -9 of the worker its children are gone: an idle one, one in a loop, and one that holds the GIL."""
    program = tmp_path / "worker.py"
    program.write_text(
        "import asyncio\n"
        "from tests import sandboxed\n"
        "from toril import Queue, Worker\n"
        f"queue = Queue('tests', connection={server_url!r}, prefix={queue.prefix!r})\n"
        "for function in (sandboxed.spin, sandboxed.hold, sandboxed.pid):\n"
        "    queue.processor(function.__name__, sandboxed=True)(function)\n"
        "asyncio.run(Worker(queue, concurrency=3).run())\n"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        env={**os.environ, "PYTHONPATH": path},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        endless = [await queue.add("spin"), await queue.add("hold", {"alone": True})]

        async def reported() -> bool:
            for job in endless:
                await job.refresh()
            return all(job.progress for job in endless)

        (idle,) = await ended(await queue.add("pid"))
        await until("the endless jobs to begin", reported, DEADLINE)
    finally:
        process.kill()
        await process.wait()

    spinning, (holding,) = (job.progress for job in endless)
    pids = [idle, spinning] + [holding] * sys.platform.startswith("linux")
    await until("the children's end", lambda: not any(map(is_running, pids)))
    with contextlib.suppress(ProcessLookupError):
        os.kill(holding, signal.SIGKILL)


async def test_a_worker_runs_a_function_by_name(queue: Queue, server_url: str, prefix: str) -> None:
    """`module:function` is called with the job."""
    job = await queue.add("any", {"n": 1})
    async with Worker("tests", "tests.sandboxed:whole", connection=server_url, prefix=prefix):
        (result,) = await ended(job)

    assert result[:2] == ["any", {"n": 1}]
    assert result[2] != os.getpid()


async def test_the_queue_of_its_job_is_the_workers(
    queue: Queue, server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a processor adds there goes to the worker's server, wherever TORIL_URL leads."""
    monkeypatch.setenv("TORIL_URL", "redis://127.0.0.1:1")
    job = await queue.add("first")
    async with Worker("tests", "tests.sandboxed:add_another", connection=server_url, prefix=prefix):
        (added,) = await ended(job)
        assert await ended(await queue.get_job_or_raise(added)) == [None]


async def test_a_processor_of_two_queues_knows_whose_job_it_has(queue: Queue) -> None:
    """It is declared for one, and runs for another."""
    queue.processors["where"] = sandboxed.where
    async with Worker(queue):
        assert await ended(await queue.add("where")) == [queue.qualified_name]


async def test_what_no_child_could_import_is_refused(queue: Queue) -> None:
    """When it is decorated where that can be seen, else when the worker starts; with what would mend it."""

    def local() -> None: ...

    with pytest.raises(ConfigurationError, match="top of a module"):
        queue.processor("local", sandboxed=True)(local)
    with pytest.raises(ConfigurationError, match="top of a module"):
        queue.processor("lambda", sandboxed=True)(lambda: None)
    local.__qualname__ = "nowhere"
    queue.processor("lost", sandboxed=True)(local)
    with pytest.raises(ConfigurationError, match=r"'lost'.*could not import it.*nowhere"):
        await Worker(queue).run(handle_signals=False)
    with pytest.raises(ConfigurationError, match=r"tests\.nothing.*cannot be imported"):
        await Worker(queue, "tests.nothing:f").run(handle_signals=False)
