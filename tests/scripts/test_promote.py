"""promote: delayed -> waiting or prioritized."""

from __future__ import annotations

import pytest

from toril.errors import JobNotInStateError

from .room import NOW, Room, record


async def test_a_delayed_job_joins_the_end_of_the_line(room: Room) -> None:
    """Whatever `lifo` says. It waits no longer, and somebody is woken."""
    await room.add(record(delay=60_000, lifo=True), record())
    await room.forget_marker()
    await room.events()

    await room.scripts.promote("1")

    assert await room.wait() == ["1", "2"]
    assert (await room.job("1"))["delay"] == "0"
    assert "delayed" not in await room.dump()
    assert await room.sleepers_are_woken()
    assert await room.events() == ["waiting jobId=1 prev=delayed"]


async def test_a_priority_is_kept(room: Room) -> None:
    """It goes to `prioritized`, behind its equals."""
    await room.add(record(delay=60_000, priority=2), record(priority=2))

    await room.scripts.promote("1")

    assert await room.scores("prioritized") == {"2": 2 * 2**32 + 1, "1": 2 * 2**32 + 2}


async def test_a_paused_queue_wakes_nobody(room: Room) -> None:
    """The alarm that is set stays."""
    await room.set_meta(paused=1)
    await room.add(record(delay=60_000))

    await room.scripts.promote("1")

    assert await room.marker() == {"1": NOW + 60_000}
    assert await room.wait() == ["1"]


async def test_what_is_not_delayed_stays_where_it_is(room: Room) -> None:
    """The second of two promotions, a waiting job, no job at all: refused, nothing changes."""
    await room.add(record(delay=60_000), record())
    await room.scripts.promote("1")
    before = await room.dump()

    for job_id in ("1", "2", "no-such"):
        with pytest.raises(JobNotInStateError):
            await room.scripts.promote(job_id)

    assert await room.dump() == before
