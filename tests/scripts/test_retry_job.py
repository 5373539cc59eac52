"""retry_job: active -> waiting or prioritized, at once."""

from __future__ import annotations

import pytest

from toril.errors import JobNotFoundError, JobNotInStateError, LockLostError

from .room import NOW, TOKEN, Room, record


async def retry(
    room: Room, job_id: str = "1", token: str = TOKEN, *, lifo: bool = False, now: int = NOW
) -> None:
    await room.scripts.retry_job(now, job_id, token, "boom", '["trace"]', lifo=lifo)


async def test_a_failed_attempt_joins_the_end_of_the_line(room: Room) -> None:
    """The attempt is counted, its reason kept; no `failed` is announced."""
    await room.start(record())
    await room.add(record())
    await room.client.sadd(room.keys.key("stalled"), "1")
    await room.forget_marker()
    await room.events()
    before = await room.job("1")

    await retry(room)

    assert await room.wait() == ["1", "2"]
    assert await room.job("1") == {**before, "atm": "1", "failedReason": "boom", "stacktrace": '["trace"]'}
    assert await room.sleepers_are_woken()
    dump = await room.dump()
    assert {"active", "stalled", "1:lock"} & dump.keys() == set()
    assert await room.events() == ["waiting jobId=1 prev=active"]


async def test_a_lifo_job_is_the_next_to_run_again(room: Room) -> None:
    """It joins the right end."""
    await room.start(record())
    await room.add(record())

    await retry(room, lifo=True)

    assert await room.wait() == ["2", "1"]


async def test_a_prioritized_job_goes_by_its_priority_again(room: Room) -> None:
    """Behind its equals."""
    await room.start(record(priority=3))
    await room.add(record(priority=3))

    await retry(room)

    assert await room.scores("prioritized") == {"2": 3 * 2**32 + 2, "1": 3 * 2**32 + 3}


async def test_jobs_that_are_due_come_first(room: Room) -> None:
    """What was due before the retry stands before it in the line."""
    await room.start(record())
    await room.add(record(delay=10))
    await room.events()

    await retry(room, now=NOW + 10)

    assert await room.wait() == ["1", "2"]
    assert await room.events() == ["waiting jobId=2 prev=delayed", "waiting jobId=1 prev=active"]


async def test_the_slot_that_it_leaves_opens_the_queue(room: Room) -> None:
    """Under a global concurrency of one, the retry itself makes room."""
    await room.set_meta(concurrency=1)
    await room.start(record())
    await room.forget_marker()

    await retry(room)

    assert await room.sleepers_are_woken()


async def test_refusals_change_nothing(room: Room) -> None:
    """No such job, no lock, somebody else's lock."""
    await room.start(record(), record())
    await room.client.delete(room.keys.job("2") + ":lock")
    before = await room.dump()

    for job_id, token, refused in (
        ("no-such", TOKEN, JobNotFoundError),
        ("2", TOKEN, LockLostError),
        ("1", "worker:other", LockLostError),
    ):
        with pytest.raises(refused):
            await retry(room, job_id, token)

    assert await room.dump() == before


async def test_a_job_that_is_not_active_is_not_retried(room: Room) -> None:
    """It joins no list, and no attempt is counted."""
    await room.start(record())
    await room.client.delete(room.keys.key("active"))

    with pytest.raises(JobNotInStateError):
        await retry(room)

    assert await room.wait() == []
    assert "atm" not in await room.job("1")
