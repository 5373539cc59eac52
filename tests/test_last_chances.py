"""A job that another stall would end is tried alone, and its worker goes on all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from tests.patience import ended, until
from toril import Job, Queue, Worker
from toril._loops.last_chances import is_last_chance


@pytest.mark.parametrize(
    ("record", "most", "expected"),
    [
        ({}, 1, False),
        ({"stc": "1"}, 1, True),
        ({"stc": "1"}, 3, False),
        ({"stc": "3"}, 3, True),
        ({"stc": "1"}, 0, True),
        ({"stc": "2", "defa": "job stalled more than allowable limit"}, 1, False),
        ({"stc": "often"}, 1, False),
    ],
)
def test_which_job_has_its_last_chance(record: dict[str, str], most: int, expected: bool) -> None:
    """One that was taken back as often as it may be, and has not failed by that yet."""
    assert is_last_chance(record, most) is expected


async def stall(client: redis.asyncio.Redis, *jobs: Job[Any]) -> None:
    """Leave what the stalled check leaves of a job that it has taken back once."""
    for job in jobs:
        await client.hset(f"{job.queue.keys.base}{job.id}", "stc", "1")


async def test_suspicious_jobs_run_alone(queue: Queue, client: redis.asyncio.Redis) -> None:
    """One after the other, whatever was fetched with them; that goes back, and is not counted as started."""
    jobs = await queue.add_bulk(("work", number) for number in range(12))
    suspects = {jobs[2].id, jobs[3].id, jobs[7].id}
    await stall(client, jobs[2], jobs[3], jobs[7])
    running: set[str] = set()
    beside: dict[str, set[str]] = {job.id: set() for job in jobs}

    async def process(job: Job) -> int:
        running.add(job.id)
        for one in running:
            beside[one] |= running - {one}
        await asyncio.sleep(0.03)
        running.remove(job.id)
        return job.attempts_started

    async with Worker(queue, process, concurrency=24):
        assert await ended(*jobs) == [1] * 12

    assert {job_id for job_id in suspects if beside[job_id]} == set()
    assert any(beside[job.id] for job in jobs), "the others run beside each other"
    assert [await client.hget(f"{queue.keys.base}{job.id}", "ats") for job in jobs] == ["1"] * 12


async def test_a_long_one_holds_nobody_up_for_long(queue: Queue, client: redis.asyncio.Redis) -> None:
    """After its probation others begin beside it, another suspicious one too."""
    goes_on = asyncio.Event()

    async def process(job: Job) -> None:
        if job.name == "long":
            await goes_on.wait()
        if job.name == "last":
            goes_on.set()

    jobs = [await queue.add(name) for name in ("long", "long", "plain", "last")]
    await stall(client, jobs[0], jobs[1])
    async with Worker(queue, process, concurrency=5, lock_duration=1):
        assert await ended(*jobs) == [None] * 4


@asynccontextmanager
async def waiting_for_its_try(
    queue: Queue, client: redis.asyncio.Redis
) -> AsyncGenerator[tuple[Worker, Job]]:
    """A worker that is busy with another job, and a suspicious one that is about to be fetched."""
    blocker = await queue.add("blocker")
    began = asyncio.Event()

    async def process(job: Job) -> None:
        began.set()
        assert job.id == blocker.id
        await asyncio.sleep(60)

    async with Worker(queue, process, concurrency=5) as worker:
        await began.wait()
        job = await queue.add("suspicious", delay=60)
        await stall(client, job)
        await job.promote()
        yield worker, job


async def test_one_that_waits_is_handed_back_uncounted(queue: Queue, client: redis.asyncio.Redis) -> None:
    """Where its worker closes meanwhile."""
    async with waiting_for_its_try(queue, client) as (worker, job):
        await until("the fetch", lambda: client.exists(f"{queue.keys.base}{job.id}:lock"))
        await worker.close(force=True)
    assert await job.get_state() == "waiting"
    assert await client.hmget(f"{queue.keys.base}{job.id}", "ats", "stc", "atm") == ["0", "1", None]


async def test_one_that_waits_can_be_cancelled(queue: Queue, client: redis.asyncio.Redis) -> None:
    """It fails without a run."""
    async with waiting_for_its_try(queue, client) as (worker, job):
        await until("the fetch", lambda: worker.cancel_job(job.id, "not wanted"))
        (error,) = await ended(job)
        assert "the job was cancelled: not wanted" in str(error)
        worker.stop(now=True)
