"""Jobs that go on in steps, and jobs that are fetched and moved by hand."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.patience import Heard, ended, until, within
from toril import ConfigurationError, Job, JobNotInStateError, LockLostError, Queue, WaitingError, Worker


async def nothing(job: Job) -> None: ...


async def taken(worker: Worker) -> Job:
    job = await worker.get_next_job()
    assert job is not None
    return job


async def test_a_job_can_ask_to_run_again_at_once(queue: Queue) -> None:
    """`WaitingError`: it is given back, and no attempt is counted."""

    async def process(job: Job) -> int:
        if job.attempts_started < 3:
            raise WaitingError()
        return job.attempts_started

    job = await queue.add("steps")
    async with Worker(queue, process):
        assert await ended(job) == [3]
    await job.refresh()
    assert job.attempts_made == 1


# By hand


async def test_a_job_that_was_fetched_by_hand_is_completed_by_hand(queue: Queue) -> None:
    """It is active under a token, and its own moves end it."""
    added = await queue.add("by hand", {"n": 1})
    worker = Worker(queue, nothing, name="hand")
    job = await worker.get_next_job(token="mine")
    assert job is not None
    assert (job.id, job.token, job.data) == (added.id, "mine", {"n": 1})
    assert await job.is_active()

    await job.move_to_completed({"ok": True})
    await added.refresh()
    assert (added.return_value, added.processed_by) == ({"ok": True}, "hand")
    assert await added.is_completed()


async def test_a_job_that_was_fetched_by_hand_is_failed_by_hand(queue: Queue) -> None:
    """For good, with a reason, whatever attempts are left."""
    added = await queue.add("by hand", attempts=5, stack_trace_limit=0)
    job = await taken(Worker(queue, nothing))
    await job.move_to_failed("no paper")
    await added.refresh()
    assert (added.failed_reason, added.stacktrace) == ("no paper", [])
    assert await added.is_failed()


async def test_a_job_that_was_fetched_by_hand_is_put_off_or_given_back(queue: Queue) -> None:
    """`move_to_delayed` and `move_to_wait` count no attempt."""
    added = await queue.add("by hand")
    worker = Worker(queue, nothing)
    await (await taken(worker)).move_to_delayed(60)
    assert await added.is_delayed()
    await added.promote()
    await (await taken(worker)).move_to_wait()
    assert await added.is_waiting()
    await added.refresh()
    assert (added.attempts_made, added.attempts_started) == (0, 2)


async def test_a_job_that_was_fetched_by_hand_waits_for_children(queue: Queue) -> None:
    """True where it waits now; False where there is nothing to wait for. One child can be named."""
    added = await queue.add("parent")
    worker = Worker(queue, nothing)
    job = await taken(worker)
    assert not await job.move_to_waiting_children()
    child = await queue.add("child", parent=added)
    assert await job.move_to_waiting_children(child)
    assert await added.is_waiting_children()
    await (await taken(worker)).move_to_completed("done")
    assert await (await taken(worker)).get_children_values() == {queue.keys.job(child.id): "done"}


async def test_fetching_by_hand_can_wait(queue: Queue) -> None:
    """`block`: for so long, or until a job is there; without it None comes at once."""
    worker = Worker(queue, nothing)
    assert await worker.get_next_job() is None
    began = time.monotonic()
    assert await worker.get_next_job(block=0.2) is None
    assert time.monotonic() - began > 0.15
    async with within("the job"):
        fetching = asyncio.create_task(worker.get_next_job(block=10))
        added = await queue.add("late")
        job = await fetching
    assert job is not None
    assert job.id == added.id


async def test_a_lock_is_kept_by_hand(queue: Queue) -> None:
    """`extend_lock` keeps the claim, also one that ran out; once it is another's it says so, and moves are refused."""
    await queue.add("by hand")
    job = await taken(Worker(queue, nothing, lock_duration=60))
    lock = queue.keys.job(job.id) + ":lock"
    assert await job.extend_lock(120)
    assert await queue.connection.execute("PTTL", lock) > 60_000
    await queue.connection.execute("DEL", lock)
    assert await job.extend_lock(60)
    await queue.connection.execute("SET", lock, "another")
    assert not await job.extend_lock(60)
    with pytest.raises(ConfigurationError, match="at least a millisecond"):
        await job.extend_lock(0)
    with pytest.raises(LockLostError, match=job.id):
        await job.move_to_completed()


async def test_priority_and_delay_change_where_a_job_waits(queue: Queue) -> None:
    """`change_priority` and `change_delay`; a delay only of what is delayed."""
    first, second, third = await queue.add_bulk([("a", None), ("b", None), ("c", None)])
    await first.change_priority(5)
    await second.change_priority(5, lifo=True)
    assert [await first.get_state(), first.priority] == ["prioritized", 5]
    worker = Worker(queue, nothing)
    assert [(await taken(worker)).id for _ in range(3)] == [third.id, second.id, first.id]

    delayed = await queue.add("d", delay=60)
    await delayed.change_delay(0)
    assert (await taken(worker)).id == delayed.id
    with pytest.raises(JobNotInStateError):
        await delayed.change_delay(1)


# Taking a job away from its processor


@pytest.mark.parametrize("how", ["one", "all"])
async def test_a_running_job_can_be_cancelled(queue: Queue, how: str) -> None:
    """`cancel_job` and `cancel_all_jobs`: the processor is cancelled where it awaits, and the attempt fails."""
    stopped = asyncio.Event()

    async def process(job: Job) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    worker = Worker(queue, process)
    heard = Heard(worker, "active")
    job = await queue.add("endless")
    async with worker:
        await heard.wait()
        assert not worker.cancel_job("nobody")
        if how == "one":
            assert worker.cancel_job(job.id)
        else:
            assert worker.cancel_all_jobs() == 1
        async with within("the cancellation"):
            await stopped.wait()
        await until("the failure", job.is_failed)
