"""move_stalled_jobs_to_wait: active -> waiting, for jobs whose worker has fallen silent."""

from __future__ import annotations

from .room import NOW, Room, record

LIMIT_REASON = "job stalled more than allowable limit"


async def check(room: Room, *, now: int = NOW, most: int = 1) -> list[str]:
    """Look once more, as if the interval had passed."""
    await room.client.delete(room.keys.key("stalled-check"))
    return await room.scripts.move_stalled_jobs_to_wait(now, most, 30_000)


async def silence(room: Room, *job_ids: str) -> None:
    await room.client.delete(*(room.keys.job(job_id) + ":lock" for job_id in job_ids))


async def test_a_silent_job_is_taken_back_at_the_second_look(room: Room) -> None:
    """Seen at one check, still without a lock at the next: it is the next to run, counted and announced."""
    await room.start(record(), record())
    await room.add(record())
    await silence(room, "1")
    await room.forget_marker()
    await room.events()

    assert await check(room) == []
    assert (await room.dump())["stalled"] == ["1", "2"]
    assert await room.events() == []

    assert await check(room) == ["1"]
    assert await room.wait() == ["3", "1"]
    assert await room.ids("active") == ["2"]
    job = await room.job("1")
    assert (job["stc"], "defa" in job) == ("1", False)
    assert await room.sleepers_are_woken()
    assert (await room.dump())["stalled"] == ["2"]
    assert await room.events() == ["waiting jobId=1 prev=active", "stalled jobId=1"]


async def test_a_job_whose_lock_is_kept_stays(room: Room) -> None:
    """However often it is looked at."""
    await room.start(record())

    for _ in range(3):
        assert await check(room) == []

    assert await room.ids("active") == ["1"]


async def test_a_job_that_stalls_too_often_is_to_fail(room: Room) -> None:
    """It gets a deferred failure; the next worker that picks it up fails it."""
    await room.start(record())
    await silence(room, "1")
    await check(room)
    await check(room)
    await room.take()
    await silence(room, "1")
    await check(room)

    assert await check(room) == ["1"]

    job = await room.job("1")
    assert (job["stc"], job["defa"]) == ("2", LIMIT_REASON)
    assert await room.wait() == ["1"]


async def test_a_limit_of_0_fails_at_the_first_time(room: Room) -> None:
    """No second chance."""
    await room.start(record())
    await silence(room, "1")
    await check(room, most=0)
    await check(room, most=0)

    assert (await room.job("1"))["defa"] == LIMIT_REASON


async def test_a_planned_run_comes_back_however_often(room: Room) -> None:
    """As long as its scheduler lives: nobody else would plan the next run."""
    await room.start(record(), record(), record())
    for job_id, scheduler in (("1", "nightly"), ("2", "hourly"), ("3", "gone")):
        await room.client.hset(room.keys.job(job_id), "rjk", scheduler)
    await room.client.hset(room.keys.key("repeat:nightly"), "name", "x")
    await room.client.zadd(room.keys.key("repeat"), {"hourly": NOW})
    await silence(room, "1", "2", "3")
    await check(room, most=0)
    await check(room, most=0)

    assert ["defa" in await room.job(job_id) for job_id in "123"] == [False, False, True]


async def test_a_prioritized_job_comes_back_before_all_others(room: Room) -> None:
    """It joins `wait`, whatever its priority: it has waited once."""
    await room.start(record(priority=9))
    await silence(room, "1")
    await check(room)
    await check(room)

    assert await room.wait() == ["1"]
    assert "prioritized" not in await room.dump()


async def test_of_all_workers_one_looks_in_an_interval(room: Room) -> None:
    """The second call within the interval does nothing at all."""
    await room.start(record())
    await check(room)
    await silence(room, "1")
    before = await room.dump()

    assert await room.scripts.move_stalled_jobs_to_wait(NOW + 1, 1, 30_000) == []

    assert await room.dump() == before
    assert before["stalled-check"] == str(NOW)
    assert 25_000 < await room.client.pttl(room.keys.key("stalled-check")) <= 30_000


async def test_a_job_that_has_ended_meanwhile_is_left_alone(room: Room) -> None:
    """A suspect that is not active any more is no suspect."""
    await room.start(record())
    await silence(room, "1")
    await check(room)
    await room.client.lrem(room.keys.key("active"), 0, "1")

    assert await check(room) == []
    assert await room.wait() == []
    assert "stc" not in await room.job("1")


async def test_a_paused_queue_takes_back_and_wakes_nobody(room: Room) -> None:
    """The job waits for the queue to open."""
    await room.start(record())
    await silence(room, "1")
    await check(room)
    await room.set_meta(paused=1)
    await room.forget_marker()

    assert await check(room) == ["1"]
    assert await room.marker() == {}


async def test_very_many_active_jobs_are_looked_at(room: Room) -> None:
    """More than Lua can unpack at once."""
    ids = [f"job-{n}" for n in range(16_000)]
    for start in range(0, len(ids), 4_000):
        await room.client.lpush(room.keys.key("active"), *ids[start : start + 4_000])

    assert await check(room) == []

    assert await room.client.scard(room.keys.key("stalled")) == 16_000
