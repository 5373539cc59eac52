"""Deduplication: what adding does while another job of the same deduplication id is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.patience import ended, until, within
from toril import Deduplication, Event, Job, Queue, QueueEvents, Worker


async def run_all(queue: Queue, *jobs: Job[Any]) -> None:
    async def process(job: Job) -> None: ...

    async with Worker(queue, process):
        await ended(*jobs)


async def test_simple_drops_until_the_first_has_ended(queue: Queue) -> None:
    """What is added meanwhile is answered with the job that stands for it; the queue tells who that is."""
    first = await queue.add("report", {"n": 1}, deduplication=Deduplication("r"))
    dropped = await queue.add("report", {"n": 2}, deduplication=Deduplication("r"))
    other = await queue.add("report", {"n": 3}, deduplication=Deduplication("s"))

    assert dropped.id == first.id != other.id
    assert await queue.get_deduplication_job_id("r") == first.id
    await run_all(queue, first, other)
    assert await queue.get_deduplication_job_id("r") is None
    assert (await queue.add("report", deduplication=Deduplication("r"))).id != first.id


async def test_a_ttl_of_0_is_none(queue: Queue) -> None:
    """The id is taken until its job has ended, as in BullMQ, and not for no time at all."""
    first = await queue.add("report", deduplication=Deduplication("r", ttl=0))
    assert (await queue.add("report", deduplication=Deduplication("r", ttl=0))).id == first.id
    await first.remove()
    assert (await queue.add("report", deduplication=Deduplication("r", ttl=0))).id != first.id


async def test_throttling_drops_for_a_time(queue: Queue) -> None:
    """With `ttl` the id is taken for that time, although the first has ended, and free afterwards."""
    throttle = Deduplication("r", ttl=60)
    first = await queue.add("report", deduplication=throttle)
    await run_all(queue, first)

    assert (await queue.add("report", deduplication=throttle)).id == first.id
    # Nobody waits a minute.
    await queue.connection.execute("PEXPIRE", queue.keys.key("de:r"), 1)
    await until("the end of the ttl", lambda: _is_free(queue, "r"))
    assert (await queue.add("report", deduplication=throttle)).id != first.id


async def test_extending_lets_the_time_begin_anew(queue: Queue) -> None:
    """With `extend` each dropped job renews the ttl; without, none does."""

    async def left(deduplication_id: str) -> int:
        left: int = await queue.connection.execute("PTTL", queue.keys.key(f"de:{deduplication_id}"))
        return left

    for deduplication in (Deduplication("plain", ttl=60), Deduplication("extended", ttl=60, extend=True)):
        await queue.add("report", deduplication=deduplication)
        key = queue.keys.key(f"de:{deduplication.id}")
        await queue.connection.execute("PEXPIRE", key, 1000)
        await queue.add("report", deduplication=deduplication)

    assert await left("plain") <= 1000
    assert await left("extended") > 1000


async def test_debouncing_runs_the_last_one(queue: Queue) -> None:
    """`replace` with a delay: a delayed job makes way for the newer one, whose delay begins now."""
    debounce = Deduplication("r", ttl=60, extend=True, replace=True)
    first = await queue.add("report", {"n": 1}, delay=30, deduplication=debounce)
    second = await queue.add("report", {"n": 2}, delay=30, deduplication=debounce)

    assert await first.get_state() == "unknown"
    assert [job.data for job in await queue.get_delayed()] == [{"n": 2}]
    assert await queue.get_deduplication_job_id("r") == second.id


async def test_rescheduling_keeps_the_job_and_moves_it(queue: Queue) -> None:
    """`reschedule`: a delayed job takes over the delay of the dropped one, and stays the one it was."""
    reschedule = Deduplication("r", reschedule=True)
    first = await queue.add("report", {"n": 1}, delay=30, deduplication=reschedule)
    second = await queue.add("report", {"n": 2}, delay=60, deduplication=reschedule)

    assert second.id == first.id
    await first.refresh()
    assert (first.data, first.delay) == ({"n": 1}, 60_000)


async def test_the_last_is_kept_while_the_first_runs(queue: Queue) -> None:
    """`keep_last_if_active`: of all that were dropped during a run, the last runs after it."""
    keep = Deduplication("r", keep_last_if_active=True)
    runs: list[int] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> None:
        runs.append(job.data["n"])
        begun.set()
        await go_on.wait()

    await queue.add("report", {"n": 1}, deduplication=keep)
    async with Worker(queue, process):
        async with within("the first run"):
            await begun.wait()
        for n in (2, 3):
            await queue.add("report", {"n": n}, deduplication=keep)
        go_on.set()
        await until("the second run", lambda: len(runs) == 2)
    assert runs == [1, 3]


@pytest.mark.parametrize("by", ["the queue", "the job"])
async def test_an_id_can_be_freed(queue: Queue, by: str) -> None:
    """`remove_deduplication_key` of the queue, or of the job that owns it; False where nobody did."""
    first = await queue.add("report", deduplication=Deduplication("r"))
    await first.refresh()

    async def free() -> bool:
        return await (
            queue.remove_deduplication_key("r") if by == "the queue" else first.remove_deduplication_key()
        )

    assert await free()
    assert not await free()
    assert (await queue.add("report", deduplication=Deduplication("r"))).id != first.id


async def test_who_is_dropped_is_told(queue: Queue) -> None:
    """The event `deduplicated` says which job stands for which id."""
    events = QueueEvents(queue.name, connection=queue.connection, prefix=queue.prefix)
    async with events:
        first = await queue.add("report", deduplication=Deduplication("r"))
        await queue.add("report", deduplication=Deduplication("r"))
        async with within("the event"):
            told = [event async for event in _until_named(events, "deduplicated")]
        event = told[-1]
        assert event.job_id == first.id
        assert event.fields["deduplicationId"] == "r"
        assert event.fields["deduplicatedJobId"] != first.id


async def _until_named(events: QueueEvents, name: str) -> AsyncIterator[Event]:
    async for event in events:
        yield event
        if event.name == name:
            return


async def _is_free(queue: Queue, deduplication_id: str) -> bool:
    return await queue.get_deduplication_job_id(deduplication_id) is None
