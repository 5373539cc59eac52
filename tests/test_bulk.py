"""Verbs on many jobs at once, and what the getters count."""

from __future__ import annotations

import pytest

from tests.patience import Heard, ended
from toril import (
    ConfigurationError,
    Deduplication,
    Job,
    JobOptions,
    KeepJobs,
    NewJob,
    Parent,
    Queue,
    QueueEvents,
    QueueNotEmptyError,
    Worker,
)


async def work(job: Job) -> str:
    if job.name == "fails":
        raise ValueError("boom")
    return job.name


async def one_of_each(queue: Queue) -> dict[str, Job]:
    """A completed, a failed, a waiting, a prioritized, and a delayed job."""
    done = await queue.add_bulk([("works", None), ("fails", None)])
    async with Worker(queue, work):
        await ended(*done)
    delayed: JobOptions = {"delay": 60}
    left = await queue.add_bulk([
        NewJob("waits"), NewJob("urgent", None, {"priority": 2}), NewJob("later", None, delayed),
    ])  # fmt: skip
    return dict(
        zip(("completed", "failed", "waiting", "prioritized", "delayed"), [*done, *left], strict=True)
    )


async def test_draining_removes_what_waits(queue: Queue) -> None:
    """Not what is delayed, unless asked; what has ended stays."""
    await one_of_each(queue)
    assert await queue.drain() == 2
    assert await queue.drain() == 0
    assert await queue.drain(delayed=True) == 1
    counts = await queue.get_job_counts()
    assert {state: count for state, count in counts.items() if count} == {"completed": 1, "failed": 1}


@pytest.mark.parametrize("state", ["completed", "failed", "waiting", "prioritized", "delayed"])
async def test_cleaning_removes_old_jobs_of_a_state(queue: Queue, state: str) -> None:
    """Those beyond the grace, at most so many, and no others; it says which."""
    jobs = await one_of_each(queue)
    assert await queue.clean(3600, state=state) == []  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    removed = await queue.clean(0, 10, state)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert removed == [jobs[state].id]
    assert await jobs[state].get_state() == "unknown"
    assert sum((await queue.get_job_counts()).values()) == 4


async def test_cleaning_goes_on_behind_what_it_spares(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit all are looked at, although a scheduler's next run among the first is spared."""
    monkeypatch.setattr("toril.queue_verbs._MOST_PER_CLEAN", 10)
    await queue.upsert_job_scheduler("hourly", pattern="0 * * * *")
    await queue.add_bulk([NewJob("later", None, {"delay": 7200})] * 25)
    assert len(await queue.clean(0, state="delayed")) == 25
    assert await queue.get_job_counts("delayed") == {"delayed": 1}


async def test_no_jobs_are_cleaned_by_a_limit_that_is_none(queue: Queue) -> None:
    """A negative one is an error, not all of them."""
    await queue.add("waits")
    with pytest.raises(ConfigurationError, match=queue.name):
        await queue.clean(0, -1, "waiting")
    assert await queue.get_job_counts("waiting") == {"waiting": 1}


async def test_what_was_cleaned_and_removed_is_told(queue: Queue) -> None:
    """The events `cleaned` and `removed`."""
    jobs = await one_of_each(queue)
    async with QueueEvents(queue.name, connection=queue.connection, prefix=queue.prefix) as events:
        await queue.clean(0)
        await jobs["waiting"].remove()
        told = {event.name: event for event in await events.read(1000)}
        while not {"cleaned", "removed"} <= told.keys():
            told |= {event.name: event for event in await events.read(1000)}
    assert told["cleaned"].fields["count"] == "1"
    assert (told["removed"].job_id, told["removed"].prev) == (jobs["waiting"].id, "wait")


async def test_obliterating_leaves_nothing(queue: Queue) -> None:
    """But for receipts of adds, which run out. While jobs run it is refused, unless forced."""
    await one_of_each(queue)
    await queue.add("report", deduplication=Deduplication("r"))
    worker = Worker(queue, work)
    assert await worker.get_next_job() is not None
    with pytest.raises(QueueNotEmptyError, match="force"):
        await queue.obliterate()
    await queue.obliterate(force=True)
    left = await queue.connection.execute("KEYS", f"{queue.keys.base}*")
    assert [key for key in left if await queue.connection.execute("PTTL", key) < 0] == []
    assert all(key.startswith(f"{queue.keys.base}toril:add:") for key in left)


async def test_failed_jobs_are_retried_together(queue: Queue) -> None:
    """`retry_jobs`, in steps of `count`; completed ones too if asked."""
    failed = await queue.add_bulk([("fails", n) for n in range(5)])
    completed = await queue.add("works")
    async with Worker(queue, work):
        await ended(*failed, completed)
    assert await queue.retry_jobs(count=2) == 5
    assert await queue.retry_jobs(state="completed") == 1
    with pytest.raises(ConfigurationError, match="'failed' or 'completed' jobs again, not 'active'"):
        await queue.retry_jobs(state="active")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert (await queue.get_job_counts("waiting"))["waiting"] == 6


async def test_delayed_jobs_are_promoted_together(queue: Queue) -> None:
    """`promote_jobs`, in steps of `count`."""
    delayed: JobOptions = {"delay": 60}
    await queue.add_bulk([NewJob("later", None, delayed) for _ in range(5)])
    assert await queue.promote_jobs(count=2) == 5
    assert await queue.get_job_counts("waiting", "delayed") == {"waiting": 5, "delayed": 0}


async def test_records_that_no_state_knows_are_removed(queue: Queue) -> None:
    """`remove_orphaned_jobs` leaves every other job alone."""
    await one_of_each(queue)
    await queue.connection.execute("HSET", queue.keys.job("lost"), "name", "lost", "data", "{}")
    assert await queue.remove_orphaned_jobs() == 1
    assert await queue.get_job("lost") is None
    assert sum((await queue.get_job_counts()).values()) == 5


async def test_events_are_trimmed(queue: Queue) -> None:
    """`trim_events` keeps about the newest so many."""
    await queue.add_bulk([("a", None)] * 500)
    length = await queue.connection.execute("XLEN", queue.keys.key("events"))
    removed = await queue.trim_events(0)
    assert removed > 0
    assert await queue.connection.execute("XLEN", queue.keys.key("events")) == length - removed


async def test_jobs_are_counted_per_priority(queue: Queue) -> None:
    """0 counts those without one."""
    for priority in (0, 0, 2, 7, 7, 7):
        await queue.add("a", priority=priority)
    assert await queue.get_counts_per_priority([0, 1, 2, 7]) == {0: 2, 1: 0, 2: 1, 7: 3}
    assert await queue.count() == 6


async def test_each_state_has_its_getter(queue: Queue) -> None:
    """What waits, is prioritized, delayed, active, completed, failed."""
    jobs = await one_of_each(queue)
    for state, get in (
        ("waiting", queue.get_waiting),
        ("prioritized", queue.get_prioritized),
        ("delayed", queue.get_delayed),
        ("completed", queue.get_completed),
        ("failed", queue.get_failed),
    ):
        assert [job.id for job in await get()] == [jobs[state].id]
        assert await queue.get_job_state(jobs[state].id) == state
    held = await Worker(queue, work).get_next_job()
    assert held is not None
    assert [job.id for job in await queue.get_active()] == [held.id]
    assert await held.get_state() == "active"


async def test_old_ends_make_way_for_new_ones(queue: Queue) -> None:
    """`remove_on_fail` of the worker, `KeepJobs` of the job: the newest so many of each kind stay."""
    keep = KeepJobs(count=1)
    fails = await queue.add_bulk([("fails", None)] * 3)
    works = await queue.add_bulk([NewJob("works", None, {"remove_on_complete": keep})] * 3)
    worker = Worker(queue, work, remove_on_fail=2)
    heard = Heard(worker, "completed", "failed")
    async with worker:
        await heard.wait(6)
    assert await queue.get_ids("failed") == [fails[2].id, fails[1].id]
    assert await queue.get_ids("completed") == [works[2].id]


async def test_jobs_can_say_how_their_failures_are_kept(queue: Queue) -> None:
    """`remove_on_fail` of the job."""
    worker = Worker(queue, work)
    heard = Heard(worker, "failed")
    async with worker:
        await queue.add("fails", remove_on_fail=True)
        await heard.wait()
    assert await queue.get_failed() == []


async def test_a_queue_says_its_names(queue: Queue) -> None:
    """Its name, its prefix, and both together, as a parent in another queue is named."""
    assert queue.name == "tests"
    assert queue.qualified_name == f"{queue.prefix}:{queue.name}"
    parent = await queue.add("parent")
    child = await queue.add("child", parent=Parent(parent.id, queue.qualified_name))
    assert child.parent_key == queue.keys.job(parent.id)


async def test_ends_and_empty_queues_are_told(queue: Queue) -> None:
    """The events `failed` and `drained`, in the stream and to the worker's own listeners."""
    worker = Worker(queue, work, drain_delay=0.1)
    heard = Heard(worker, "drained")
    async with QueueEvents(queue.name, connection=queue.connection, prefix=queue.prefix) as events, worker:
        job = await queue.add("fails")
        await ended(job)
        await heard.wait()
        told = {event.name: event for event in await events.read(1000)}
        while "drained" not in told:
            told |= {event.name: event for event in await events.read(1000)}
    assert told["failed"].failed_reason == "boom"


async def test_a_worker_tells_of_its_pauses(queue: Queue) -> None:
    """`paused` and `resumed`."""
    worker = Worker(queue, work)
    heard = Heard(worker, "paused", "resumed")
    async with worker:
        await worker.pause()
        await worker.resume()
        assert await heard.wait(2) == [("paused",), ("resumed",)]


async def test_ends_are_counted_per_minute(queue: Queue) -> None:
    """`get_metrics`, where a worker is told to collect: how many have completed, and how many have failed."""
    jobs = await queue.add_bulk([("works", None), ("works", None), ("fails", None)])
    async with Worker(queue, work, metrics_points=60):
        await ended(*jobs)
    completed = await queue.get_metrics("completed")
    # The minute has not ended, or has just begun.
    assert (completed.count, completed.prev_count + sum(completed.data) <= 2) == (2, True)
    assert completed.prev_ts > 0
    assert (await queue.get_metrics("failed")).count == 1


async def test_settings_stand_in_meta(queue: Queue) -> None:
    """`get_meta` returns them under BullMQ's names."""
    await queue.add("a")
    await queue.set_global_concurrency(3)
    await queue.pause()
    meta = await queue.get_meta()
    assert (meta["concurrency"], meta["paused"]) == ("3", "1")
