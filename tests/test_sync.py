"""The same verbs without asyncio: from threads, from forked children, and never from within a loop."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from toril import (
    ConfigurationError,
    Job,
    JobFailedError,
    NewJob,
    Queue,
    SyncJob,
    SyncQueue,
    Worker,
)
from toril.sync import run

SOON = 15


@pytest.fixture
def blocking_queue(server_url: str, prefix: str) -> Queue:
    return Queue("blocking", connection=server_url, prefix=prefix)


def test_a_program_without_asyncio_adds_and_looks(blocking_queue: Queue) -> None:
    """Adding, looking, pausing and retrying are calls that return what they say."""
    sync = blocking_queue.sync
    job = sync.add("greet", {"name": "Ada"}, delay=60)
    assert job.data == {"name": "Ada"}
    assert job.get_state() == "delayed"
    job.promote()
    assert job.get_state() == "waiting"
    assert job.log("row") == 1
    job.update_progress({"at": 1})
    job.refresh()
    assert job.progress == {"at": 1}
    assert sync.get_job_logs(job.id).logs == ["row"]

    more = sync.add_bulk([NewJob("a", 1), ("b", 2), ("c", 3, {"priority": 5})])
    assert [one.name for one in more] == ["a", "b", "c"]
    assert sync.get_job_counts("waiting", "prioritized") == {"waiting": 3, "prioritized": 1}
    assert [one.name for one in sync.get_jobs("prioritized")] == ["c"]
    found = sync.get_job(more[0].id)
    assert found is not None
    assert found.name == "a"
    assert sync.get_job("missing") is None

    assert not sync.is_paused()
    sync.pause()
    assert sync.is_paused()
    sync.resume()
    sync.close()
    assert sync.get_job_state(job.id) == "waiting"
    sync.close()


async def test_results_reach_threads(queue: Queue) -> None:
    """`result` blocks the thread that asks until a worker has the job done, and raises what it should."""

    async def process(job: Any) -> int:
        if job.name == "bad":
            raise ValueError("bad")
        return int(job.data)

    def work() -> list[int]:
        jobs = [queue.sync.add("good", n) for n in range(5)]
        bad = queue.sync.add("bad")
        with pytest.raises(JobFailedError, match="bad"):
            bad.result(SOON)
        with pytest.raises(TimeoutError):
            queue.sync.add("later", 1, delay=60).result(0.1)
        return [job.result(SOON) for job in jobs]

    async with Worker(queue, process, concurrency=2):
        assert await asyncio.to_thread(work) == [0, 1, 2, 3, 4]
    await asyncio.to_thread(queue.sync.close)


def test_many_threads_share_one_loop(blocking_queue: Queue) -> None:
    """Threads may all call at once; there is one thread behind them."""
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda n: blocking_queue.sync.add("any", n).id, range(200)))
    assert len(set(ids)) == 200
    assert sum(thread.name == "toril-sync" for thread in threading.enumerate()) == 1
    blocking_queue.sync.close()


async def test_a_call_that_would_block_a_loop_is_refused(queue: Queue) -> None:
    """On an event loop there is the awaitable call; the refused one leaves nothing behind."""
    with pytest.raises(ConfigurationError, match="blocks the event loop"):
        queue.sync.add("any")
    assert await queue.get_ids("waiting") == []


def test_forked_children_and_their_parent_go_on(server_url: str, prefix: str) -> None:
    """A pre-forking server that has added before the fork can add after it, in parent and children."""
    program = """
        import gc, os, sys
        from toril import Queue

        queue = Queue("forked", connection=sys.argv[1], prefix=sys.argv[2])
        queue.sync.add("before")
        children = []
        for n in range(3):
            pid = os.fork()
            if pid == 0:
                gc.collect()
                queue.sync.add(f"child{n}")
                gc.collect()
                queue.sync.add(f"child{n}")
                os._exit(0)
            children.append(pid)
            queue.sync.add("parent")
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        queue.sync.add("after")
        print(queue.sync.get_job_counts("waiting")["waiting"])
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), server_url, prefix],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "11"


def test_a_generator_runs_in_the_thread_that_has_it(blocking_queue: Queue) -> None:
    """It may block, ask a database that wants no event loop around, and make such calls itself."""
    sync = blocking_queue.sync

    def made() -> Iterator[tuple[str, int]]:
        for n in range(3):
            yield "a", n + sync.get_waiting_count()

    assert [job.data for job in sync.add_bulk(made())] == [0, 1, 2]
    sync.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alarms")
def test_what_a_signal_raises_ends_the_call(blocking_queue: Queue) -> None:
    """Not Ctrl-C alone: whoever bounds a call by an alarm leaves nothing running behind it."""
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    def ring(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(TimeoutError):
            run(work())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended.wait(SOON)


def test_a_program_that_has_blocked_ends(server_url: str, prefix: str) -> None:
    """The thread behind the calls does not hold up the end of the process, nor says anything then."""
    program = """
        import sys
        from toril import Queue
        Queue("ending", connection=sys.argv[1], prefix=sys.argv[2]).sync.add("any")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), server_url, prefix],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_every_verb_has_its_twin() -> None:
    """What is awaited of a queue and of a job is there without asyncio, with the same parameters.

    Left out are the moves of a worker that fetches by hand, which runs an event loop anyway.
    """
    by_hand = {"add_stored", "wait_for_end", "wait_until_ready", "extend_lock"}
    for twin, original in ((SyncQueue, Queue), (SyncJob, Job)):
        for name, verb in inspect.getmembers(original, inspect.iscoroutinefunction):
            is_private = name.startswith(("_", "move_to_")) or name in by_hand
            if is_private or isinstance(inspect.getattr_static(original, name), staticmethod):
                continue
            has = inspect.signature(getattr(twin, name)).parameters
            assert str(has.values()) == str(inspect.signature(verb).parameters.values()), name


def test_what_a_job_knows_its_twin_knows(blocking_queue: Queue) -> None:
    """Under the same names, as a plain `def` asks its job for its attempts."""
    job = blocking_queue.sync.add("any", {"n": 1}, priority=3)
    known = [
        name
        for name, _ in inspect.getmembers(Job, lambda member: isinstance(member, property))
        if not name.startswith("_") and name not in {"start", "token"}  # what a worker has of it
    ]

    assert {"attempts_made", "timestamp", "options", "scheduler_id"} <= set(known)
    assert [getattr(job, name) for name in known] == [getattr(job.job, name) for name in known]
    assert (job.priority, job.attempts_made) == (3, 0)
    blocking_queue.sync.close()


def test_a_program_without_asyncio_steers_and_cleans(blocking_queue: Queue) -> None:
    """Limits, counts, moves and removals block until they are done."""
    sync = blocking_queue.sync
    job = sync.add("a", {"n": 1}, delay=60)
    job.change_priority(3)
    job.change_delay(30)
    job.update_data({"n": 2})
    assert job.is_delayed()
    assert job.to_json()["data"] == {"n": 2}
    assert job.get_dependencies_count().unprocessed == 0
    assert sync.promote_jobs() == 1
    sync.set_global_concurrency(2)
    assert sync.get_global_concurrency() == 2
    assert [one.id for one in sync.get_waiting()] + [one.id for one in sync.get_prioritized()] == [job.id]
    assert sync.get_job_or_raise(job.id).name == "a"
    assert 'state="waiting"} 1' in sync.export_prometheus_metrics()
    sync.update_job_progress(job.id, 7)
    assert sync.add_job_log(job.id, "row") == 1
    assert job.remove()
    assert sync.count() == sync.drain() == 0
    sync.obliterate()
    sync.close()
