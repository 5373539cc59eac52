"""update_data, update_progress, add_log: the job stays where it is. get_state: where that is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from toril.errors import JobNotFoundError, LockLostError

from .room import TOKEN, Room, end, record

Write = Callable[[Room, str, str], Awaitable[object]]
WRITES: dict[str, Write] = {
    "data": lambda room, job_id, token: room.scripts.update_data(job_id, token, "{}"),
    "progress": lambda room, job_id, token: room.scripts.update_progress(job_id, token, "5"),
    "log": lambda room, job_id, token: room.scripts.add_log(job_id, token, "row", None),
}


async def test_data_is_replaced(room: Room) -> None:
    """Nobody is told."""
    await room.start(record())

    await room.scripts.update_data("1", TOKEN, '{"step":2}')

    assert (await room.job("1"))["data"] == '{"step":2}'
    assert await room.events() == []


async def test_progress_is_kept_and_told(room: Room) -> None:
    """As JSON, in the record and in the event."""
    await room.start(record())

    await room.scripts.update_progress("1", TOKEN, '{"pct":40}')

    assert (await room.job("1"))["progress"] == '{"pct":40}'
    assert await room.events() == ['progress jobId=1 data={"pct":40}']


async def test_the_newest_log_rows_are_kept(room: Room) -> None:
    """The answer is how many there are."""
    await room.start(record())

    counts = [await room.scripts.add_log("1", TOKEN, f"row {n}", 3) for n in range(5)]

    assert counts == [1, 2, 3, 3, 3]
    assert await room.ids("1:logs") == ["row 2", "row 3", "row 4"]


async def test_log_rows_without_a_bound_are_all_kept(room: Room) -> None:
    """Nothing is cut."""
    await room.add(record())

    counts = [await room.scripts.add_log("1", "", f"row {n}", None) for n in range(5)]

    assert counts == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("what", WRITES)
async def test_who_has_lost_the_lock_writes_nothing(room: Room, what: str) -> None:
    """Its own lock run out, another's lock, a job that is gone: refused, nothing changes."""
    await room.start(record(), record())
    await room.client.delete(room.keys.job("2") + ":lock")
    before = await room.dump()

    for job_id, token, refused in (
        ("1", "worker:other", LockLostError),
        ("2", TOKEN, LockLostError),
        ("no-such", TOKEN, JobNotFoundError),
        ("no-such", "", JobNotFoundError),
    ):
        with pytest.raises(refused):
            await WRITES[what](room, job_id, token)

    assert await room.dump() == before


@pytest.mark.parametrize("what", WRITES)
async def test_who_is_no_worker_needs_no_lock(room: Room, what: str) -> None:
    """An empty token writes about any job that there is."""
    await room.start(record())
    before = await room.dump()

    await WRITES[what](room, "1", "")

    assert await room.dump() != before


async def test_every_state_has_its_name(room: Room) -> None:
    """By the list or set that holds the id; a list of an old version counts as waiting."""
    await room.start(record("an-active"), record("a-completed"), record("a-failed"))
    await room.finish(end("a-completed"), end("a-failed", "failed"))
    await room.add(record("a-waiting"), record("a-prioritized", priority=1), record("a-delayed", delay=5))
    await room.client.zadd(room.keys.key("waiting-children"), {"a-waiting-children": 1})
    await room.client.lpush(room.keys.key("paused"), "old")

    for job_id in (
        "an-active",
        "a-completed",
        "a-failed",
        "a-waiting",
        "a-prioritized",
        "a-delayed",
        "a-waiting-children",
    ):
        assert await room.scripts.get_state(job_id) == job_id.partition("-")[2]
    assert await room.scripts.get_state("old") == "waiting"
    assert await room.scripts.get_state("no-such") == "unknown"
