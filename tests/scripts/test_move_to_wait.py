"""move_to_wait: active -> waiting or prioritized, as if the job had not been taken."""

from __future__ import annotations

import pytest

from toril.errors import JobNotFoundError, LockLostError

from .room import TOKEN, Room, record


async def test_a_job_that_is_given_back_is_the_next_to_run(room: Room) -> None:
    """It stands at the right end of `wait`, uncounted, and somebody is woken."""
    await room.start(record())
    await room.add(record())
    await room.client.sadd(room.keys.key("stalled"), "1")
    await room.forget_marker()
    await room.events()
    before = await room.job("1")

    assert await room.scripts.move_to_wait("1", TOKEN) == 0

    assert await room.wait() == ["2", "1"]
    assert await room.job("1") == before
    assert await room.sleepers_are_woken()
    dump = await room.dump()
    assert {"active", "stalled", "1:lock"} & dump.keys() == set()
    assert await room.events() == ["waiting jobId=1 prev=active"]


async def test_a_prioritized_job_goes_before_its_equals(room: Room) -> None:
    """Sequence 0 of its priority; the counter is not touched."""
    await room.start(record(priority=3))
    await room.add(record(priority=3), record(priority=2))

    await room.scripts.move_to_wait("1", TOKEN)

    assert await room.scores("prioritized") == {"3": 2 * 2**32 + 3, "1": 3 * 2**32, "2": 3 * 2**32 + 2}


async def test_a_paused_queue_takes_it_back_and_wakes_nobody(room: Room) -> None:
    """The marker is for open queues."""
    await room.start(record())
    await room.set_meta(paused=1)
    await room.forget_marker()

    await room.scripts.move_to_wait("1", TOKEN)

    assert await room.wait() == ["1"]
    assert await room.marker() == {}


async def test_the_answer_is_what_is_left_of_a_rate_limit(room: Room) -> None:
    """In milliseconds."""
    await room.start(record())
    await room.client.set(room.keys.key("limiter"), "5", px=60_000)

    assert 55_000 < await room.scripts.move_to_wait("1", TOKEN) <= 60_000


async def test_a_job_that_is_not_active_is_not_added_to_the_line(room: Room) -> None:
    """Nobody gets it twice."""
    await room.start(record())
    await room.client.delete(room.keys.key("active"))

    await room.scripts.move_to_wait("1", TOKEN)

    assert await room.wait() == []
    assert await room.events() == []


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
            await room.scripts.move_to_wait(job_id, token)

    assert await room.dump() == before
