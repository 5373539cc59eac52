"""upsert_job_scheduler: nowhere -> waiting, prioritized or delayed. Beside Node: `tests/differential/`."""

from __future__ import annotations

import json

import pytest

from toril.errors import SchedulerSlotError
from toril.scripts import NextRun

from .room import NOW, Room

MINUTE = 60_000
OPTIONS = '{"attempts":2,"repeat":{"count":1}}'


async def upsert(
    room: Room,
    *,
    every: int | None = MINUTE,
    next_ms: int | None = None,
    now: int = NOW,
    offset: int | None = None,
    start: int | None = None,
    priority: int = 0,
    fields: tuple[str, ...] = ("name", "paint"),
) -> tuple[str, int]:
    run = NextRun(next_ms, OPTIONS, priority)
    fields = (*fields, "every", str(every)) if every else (*fields, "pattern", "* * * * *")
    return await room.scripts.upsert_job_scheduler(
        now, "s", run, "paint", '{"n":1}', fields, every, offset, start
    )


async def test_an_interval_begins_at_once(room: Room) -> None:
    """A record, one waiting job that names its scheduler, and a worker that is woken."""
    job_id, delay = await upsert(room)

    assert (job_id, delay) == (f"repeat:s:{NOW}", 0)
    assert await room.scores("repeat") == {"s": NOW}
    assert (await room.dump())["repeat:s"] == {
        "ic": "1", "name": "paint", "every": "60000", "offset": str(NOW % MINUTE)
    }  # fmt: skip
    assert await room.wait() == [job_id]
    job = await room.job(job_id)
    assert json.loads(job.pop("opts")) == {"attempts": 2, "repeat": {"count": 1}, "jobId": job_id, "delay": 0}
    assert job == {
        "name": "paint", "data": '{"n":1}', "timestamp": str(NOW), "delay": "0", "priority": "0", "rjk": "s"
    }  # fmt: skip
    assert await room.sleepers_are_woken()
    assert await room.events() == [f"added jobId={job_id} name=paint", f"waiting jobId={job_id}"]


async def test_cron_waits_for_its_time(room: Room) -> None:
    """The job is delayed, and the alarm is set."""
    job_id, delay = await upsert(room, every=None, next_ms=NOW + 5000)

    assert (job_id, delay) == (f"repeat:s:{NOW + 5000}", 5000)
    assert await room.scores("delayed") == {job_id: (NOW + 5000) * 4096}
    assert await room.marker() == {"1": NOW + 5000}


async def test_an_upsert_moves_no_schedule(room: Room) -> None:
    """With the same interval the pending job is replaced, and keeps its time."""
    first = await upsert(room, offset=7000)
    again = await upsert(room, now=NOW + 3000, offset=7000, fields=("name", "draw"))

    assert again == (first[0], first[1] - 3000)
    assert await room.scores("delayed") == {first[0]: (NOW + first[1]) * 4096}
    assert (await room.dump())["repeat:s"]["name"] == "draw"


async def test_a_pending_job_is_replaced_wherever_it_waits(room: Room) -> None:
    """Among those with a priority, in the line, and in the line of a paused queue, where Node would leave it."""
    await upsert(room, priority=3)
    await upsert(room)
    assert await room.scores("prioritized") == {}
    await room.set_meta(paused=1)
    job_id, _ = await upsert(room)

    assert await room.wait() == [job_id]
    assert [suffix for suffix in await room.dump() if suffix.startswith("repeat:s:")] == [job_id]


async def test_a_running_job_goes_on(room: Room) -> None:
    """It keeps its record and its lock; the new pending job is another one."""
    job_id, _ = await upsert(room)
    await room.take()
    again, delay = await upsert(room, now=NOW + 1000)

    assert await room.ids("active") == [job_id]
    assert (again, delay) == (f"repeat:s:{NOW + MINUTE}", MINUTE - 1000)
    assert (await room.dump())["repeat:s"]["ic"] == "1"


async def test_another_interval_begins_anew(room: Room) -> None:
    """At once, as if it were new; its pending job is replaced."""
    await upsert(room, offset=7000)
    job_id, delay = await upsert(room, now=NOW + 500, every=1000)

    assert (job_id, delay) == (f"repeat:s:{NOW + 500}", 0)
    assert await room.scores("delayed") == {}


async def leave_old_jobs(room: Room, *minutes: int) -> None:
    for n in minutes:
        await room.client.hset(room.keys.job(f"repeat:s:{NOW + n * MINUTE}"), "name", "old")


async def test_a_time_that_has_a_job_is_passed_over(room: Room) -> None:
    """An interval takes the next free time of 32."""
    await leave_old_jobs(room, *range(31))

    assert await upsert(room) == (f"repeat:s:{NOW + 31 * MINUTE}", 31 * MINUTE)


async def test_an_interval_without_a_free_time_is_refused(room: Room) -> None:
    """All 32 are taken: nothing is planned."""
    await leave_old_jobs(room, *range(32))
    await room.set_meta(**{"opts.maxLenEvents": 10_000})
    before = await room.dump()

    with pytest.raises(SchedulerSlotError):
        await upsert(room)
    assert await room.dump() == before


async def test_a_pattern_whose_time_is_taken_is_refused(room: Room) -> None:
    """It has no other time: nothing is planned."""
    await leave_old_jobs(room, 1)
    await room.set_meta(**{"opts.maxLenEvents": 10_000})
    before = await room.dump()

    with pytest.raises(SchedulerSlotError):
        await upsert(room, every=None, next_ms=NOW + MINUTE)
    assert await room.dump() == before


async def test_a_pattern_leaves_a_run_alone_that_was_promoted(room: Room) -> None:
    """It runs before its time, and the one after it is pending: the pattern's next time is not free."""
    early, _ = await upsert(room, every=None, next_ms=NOW + MINUTE)
    await room.scripts.promote(early)
    assert [job_id for job_id, _ in (await room.take()).jobs] == [early]
    await room.scripts.update_job_scheduler(NOW, "s", NextRun(NOW + 2 * MINUTE, OPTIONS), producer_id=early)
    await room.set_meta(**{"opts.maxLenEvents": 10_000})
    before = await room.dump()

    with pytest.raises(SchedulerSlotError):
        await upsert(room, every=None, next_ms=NOW + MINUTE)
    assert await room.dump() == before


async def test_a_start_is_waited_for(room: Room) -> None:
    """One in the past is now."""
    assert await upsert(room, start=NOW + 90_000) == (f"repeat:s:{NOW + 90_000}", 90_000)
    await room.scripts.remove_job_scheduler("s")
    assert await upsert(room, start=NOW - 90_000) == (f"repeat:s:{NOW}", 0)


async def test_an_offset_is_kept_where_none_is_given(room: Room) -> None:
    """Of a pending job that is replaced: what the record said before still holds."""
    await upsert(room, offset=7000)
    await upsert(room)

    assert (await room.dump())["repeat:s"]["offset"] == "7000"
