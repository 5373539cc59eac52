"""update_job_scheduler, find_idle_job_schedulers, remove_job_scheduler: what becomes of a scheduler's pending job."""

from __future__ import annotations

import json

import pytest

from toril.scripts import NextRun

from .room import NOW, Room, end

MINUTE = 60_000
RUN = NextRun(None, '{"attempts":0,"repeat":{"count":2}}')


async def make(room: Room, *fields: str, every: int | None = MINUTE, next_ms: int | None = None) -> str:
    record = ["name", "paint", "every", str(every)] if every else ["name", "paint", "pattern", "* * * * *"]
    job_id, _ = await room.scripts.upsert_job_scheduler(
        NOW, "s", NextRun(next_ms, '{"repeat":{"count":1}}'), "paint", "{}", [*record, *fields], every
    )
    await room.events()
    return job_id


async def update(room: Room, producer: str, now: int = NOW, run: NextRun = RUN) -> str:
    return await room.scripts.update_job_scheduler(now, "s", run, producer_id=producer)


async def test_a_run_that_starts_plans_the_next(room: Room) -> None:
    """With name and data of the record, and its own options."""
    job_id = await make(room, "data", '{"n":2}')
    await room.client.hset(room.keys.key("repeat:s"), "name", "draw")
    await room.take()
    await room.events()

    added = await update(room, job_id, NOW + 100)

    assert added == f"repeat:s:{NOW + MINUTE}"
    assert await room.scores("repeat") == {"s": NOW + MINUTE}
    assert (await room.dump())["repeat:s"]["ic"] == "2"
    job = await room.job(added)
    assert (job["name"], job["data"], job["rjk"], job["delay"]) == ("draw", '{"n":2}', "s", str(MINUTE - 100))
    assert json.loads(job["opts"])["repeat"] == {"count": 2}
    assert await room.events() == [
        f"added jobId={added} name=draw",
        f"delayed jobId={added} delay={NOW + MINUTE}",
    ]


async def test_only_the_pending_run_plans(room: Room) -> None:
    """A second try, an older run, and a run of a scheduler that is gone change nothing."""
    job_id = await make(room)
    await update(room, job_id)
    before = await room.dump()

    assert await update(room, job_id) == ""
    assert await update(room, "repeat:s:1") == ""
    assert await room.dump() == before

    await room.scripts.remove_job_scheduler("s")
    before = await room.dump()
    assert await update(room, job_id) == ""
    assert await room.dump() == before


async def test_a_run_that_has_a_job_already_is_said(room: Room) -> None:
    """The scheduler stays where it is."""
    job_id = await make(room)
    await room.client.hset(room.keys.job(f"repeat:s:{NOW + MINUTE}"), "name", "old")

    assert await update(room, job_id) == ""
    assert await room.scores("repeat") == {"s": NOW}
    assert await room.events() == [f"duplicated jobId=repeat:s:{NOW + MINUTE}"]


@pytest.mark.parametrize(
    ("missed", "late", "expected"),
    [
        (None, MINUTE, MINUTE),
        (None, MINUTE + 1, 2 * MINUTE),
        ("once", MINUTE, MINUTE),
        ("once", 5 * MINUTE + 1, 5 * MINUTE),
        ("once", 10_000, MINUTE),
        ("all", 5 * MINUTE + 1, MINUTE),
        ("all", 10_000, MINUTE),
    ],
)
async def test_missed_runs_follow_the_policy(
    room: Room, missed: str | None, late: int, expected: int
) -> None:
    """Skipped, made up for by the last of them, or all of them, one after another."""
    job_id = await make(room, *(("missed", missed) if missed else ()))

    added = await update(room, job_id, NOW + late)

    assert added == f"repeat:s:{NOW + expected}"
    assert (await room.wait())[:1] == ([added] if expected <= late else [job_id])


async def test_a_foreign_records_interval_is_that_of_its_jobs(room: Room) -> None:
    """Where the record has none."""
    await room.client.zadd(room.keys.key("repeat"), {"s": NOW})

    added = await room.scripts.update_job_scheduler(NOW, "s", RUN, producer_id=f"repeat:s:{NOW}", every=5000)

    assert added == f"repeat:s:{NOW + 5000}"


async def idle(room: Room) -> list[tuple[str, str]]:
    _, found = await room.scripts.find_idle_job_schedulers(0, 100)
    return found


async def test_a_scheduler_with_a_pending_job_is_not_idle(room: Room) -> None:
    """Delayed, in the line, by priority, or running."""
    job_id = await make(room, every=None, next_ms=NOW + MINUTE)
    assert await idle(room) == []
    await room.scripts.promote(job_id)
    assert await idle(room) == []
    await room.scripts.change_priority(job_id, 5)
    assert await idle(room) == []
    await room.take()
    assert await idle(room) == []


async def test_a_scheduler_whose_job_is_gone_is_found(room: Room) -> None:
    """It ended without a successor, or it vanished. A repeatable job of an old version is none of ours."""
    await room.client.zadd(room.keys.key("repeat"), {"paint:::* * * * *": NOW})
    job_id = await make(room)
    await room.take()
    await room.finish(end(job_id))

    assert await idle(room) == [("s", str(NOW))]
    assert await room.scripts.find_idle_job_schedulers(0, 1) in [(1, []), (1, [("s", str(NOW))])]
    assert await room.scripts.find_idle_job_schedulers(2, 10) == (0, [])


async def mend(room: Room, planned: int, now: int = NOW, run: NextRun = RUN) -> str:
    return await room.scripts.update_job_scheduler(now, "s", run, planned_ms=str(planned))


async def test_a_run_that_vanished_before_its_time_is_planned_again(room: Room) -> None:
    """The same run, at the same time."""
    job_id = await make(room, every=None, next_ms=NOW + MINUTE)
    await room.client.delete(room.keys.key("delayed"), room.keys.job(job_id))

    assert await mend(room, NOW + MINUTE, run=RUN._replace(next_ms=NOW + MINUTE)) == job_id
    assert await room.scores("delayed") == {job_id: (NOW + MINUTE) * 4096}


async def test_a_run_that_is_in_no_list_is_put_back(room: Room) -> None:
    """Its record is there and has not ended: it never ran."""
    job_id = await make(room)
    await room.client.delete(room.keys.key("wait"))

    assert await mend(room, NOW, NOW + 100) == job_id
    assert await room.wait() == [job_id]


async def test_a_run_that_ended_is_followed_by_the_next(room: Room) -> None:
    """As its worker should have planned it."""
    job_id = await make(room)
    await room.take()
    await room.finish(end(job_id))

    assert await mend(room, NOW, NOW + 100) == f"repeat:s:{NOW + MINUTE}"


async def test_a_scheduler_that_is_not_idle_is_not_mended(room: Room) -> None:
    """Somebody else was faster: its job is there, or it has moved on."""
    job_id = await make(room)
    before = await room.dump()
    assert await mend(room, NOW) == ""
    assert await mend(room, NOW - 1) == ""
    assert await room.dump() == before

    await room.take()
    before = await room.dump()
    assert await mend(room, NOW) == ""
    assert await room.dump() == before
    assert job_id in await room.ids("active")


async def test_removing_ends_it(room: Room) -> None:
    """Its delayed job goes with it."""
    job_id = await make(room, every=None, next_ms=NOW + MINUTE)

    assert await room.scripts.remove_job_scheduler("s")
    assert {"repeat", "repeat:s", "delayed", job_id}.isdisjoint(await room.dump())
    assert await room.events() == [f"removed jobId={job_id} prev=delayed"]
    assert not await room.scripts.remove_job_scheduler("s")


async def test_removing_leaves_what_waits(room: Room) -> None:
    """A run whose time has come is still done."""
    job_id = await make(room)

    assert await room.scripts.remove_job_scheduler("s")
    assert await room.wait() == [job_id]
    assert "repeat" not in await room.dump()
