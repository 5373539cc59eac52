"""Limits on how many jobs start, and on how many run: of one worker's making, and of the whole queue."""

from __future__ import annotations

import time

import pytest

from tests.patience import ended, until
from toril import ConfigurationError, Job, Queue, RateLimitError, Worker


async def work(job: Job) -> str:
    return job.name


async def test_a_global_rate_limit_is_a_setting_of_the_queue(queue: Queue) -> None:
    """It is set, read, and taken away; None means that there is none."""
    assert await queue.get_global_rate_limit() is None
    with pytest.raises(ConfigurationError, match=queue.name):
        await queue.set_global_rate_limit(2, 0)
    await queue.set_global_rate_limit(2, 60)
    assert await queue.get_global_rate_limit() == (2, 60.0)
    await queue.remove_global_rate_limit()
    assert await queue.get_global_rate_limit() is None


async def test_a_global_rate_limit_binds_every_worker(queue: Queue) -> None:
    """Two starts a minute, whatever the worker is set to; freeing the window lets the others run."""
    await queue.set_global_rate_limit(2, 60)
    jobs = await queue.add_bulk(("a", n) for n in range(4))
    async with Worker(queue, work, concurrency=4, maximum_rate_limit_delay=0.1):
        await ended(*jobs[:2])
        assert 0 < await queue.get_rate_limit_ttl(2) <= 60
        assert await queue.get_job_counts("waiting", "active") == {"waiting": 2, "active": 0}
        await queue.remove_rate_limit_key()
        assert await ended(*jobs) == ["a"] * 4
        # The window that has begun since is full again, and was freed by nobody.
        assert await queue.get_rate_limit_ttl(2) > 0


async def test_a_queue_can_be_closed_by_hand(queue: Queue) -> None:
    """`rate_limit`: no start for so long; then it goes on by itself. `get_rate_limit_ttl` says how long."""
    await queue.set_global_rate_limit(1000, 1)
    job = await queue.add("a")
    await queue.rate_limit(60)
    assert 0 < await queue.get_rate_limit_ttl() <= 60

    closed = time.monotonic()
    await queue.rate_limit(0.3)
    async with Worker(queue, work):
        await ended(job)
    assert time.monotonic() - closed > 0.25
    assert await queue.get_rate_limit_ttl() == 0


async def test_a_processor_can_close_the_queue_uncounted(queue: Queue) -> None:
    """`RateLimitError`: the job is given back, nothing starts for so long, and no attempt is counted."""
    starts: list[float] = []

    async def process(job: Job) -> str:
        starts.append(time.monotonic())
        if len(starts) == 1:
            raise RateLimitError(0.3)
        return "sent"

    job = await queue.add("mail", attempts=1)
    async with Worker(queue, process, limiter=(100, 1)):
        assert await ended(job) == ["sent"]
    await job.refresh()
    assert (job.attempts_made, job.attempts_started, job.failed_reason) == (1, 2, None)
    assert starts[1] - starts[0] > 0.25


async def test_the_global_concurrency_is_a_setting_of_the_queue(queue: Queue) -> None:
    """It is set, read, and taken away; `is_maxed` says whether it is reached now."""
    assert await queue.get_global_concurrency() is None
    await queue.set_global_concurrency(1)
    assert await queue.get_global_concurrency() == 1
    assert not await queue.is_maxed()

    await queue.add_bulk([("a", None), ("b", None)])
    worker = Worker(queue, work)
    held = await worker.get_next_job()
    assert held is not None
    assert await queue.is_maxed()
    assert await worker.get_next_job() is None
    await queue.remove_global_concurrency()
    assert await queue.get_global_concurrency() is None
    assert not await queue.is_maxed()
    await held.move_to_completed()


async def test_a_limited_worker_promotes_meanwhile(queue: Queue) -> None:
    """`maximum_rate_limit_delay` bounds its sleep: what becomes due under a limit joins the line."""
    await queue.add("now")
    async with Worker(queue, work, limiter=(1, 60), maximum_rate_limit_delay=0.1):
        await until("the first run", lambda: _completed(queue))
        due = await queue.add("soon", delay=0.05)
        await until("the promotion", lambda: due.is_waiting())


async def _completed(queue: Queue) -> bool:
    return (await queue.get_job_counts("completed"))["completed"] == 1
