"""move_to_active: waiting, prioritized -> active."""

from __future__ import annotations

import pytest

from .room import LOCK_MS, NOW, TOKEN, Room, record, score


async def test_a_fetched_job_is_locked_stamped_and_counted(room: Room) -> None:
    """It moves to `active`, gets a lock that runs out, its record says when and by whom, and one worker is woken."""
    await room.add(record())
    await room.forget_marker()
    before = await room.job("1")
    await room.events()

    fetched = await room.take(now=NOW + 7, worker="wk1")

    assert fetched.jobs == [("1", before)], "the answer is the record before the start"
    assert (fetched.limit_ttl_ms, fetched.due_ms, fetched.is_closed) == (0, 0, False)
    assert await room.job("1") == {**before, "processedOn": str(NOW + 7), "pb": "wk1", "ats": "1"}
    assert (await room.wait(), await room.ids("active")) == ([], ["1"])
    assert await room.client.get(room.keys.job("1") + ":lock") == TOKEN
    assert LOCK_MS - 5_000 < await room.client.pttl(room.keys.job("1") + ":lock") <= LOCK_MS
    assert await room.marker() == {"0": 0.0}
    assert await room.events() == ["active jobId=1 prev=waiting"]


async def test_a_worker_without_a_name_is_not_written(room: Room) -> None:
    """`pb` is absent, not empty."""
    await room.start(record())

    assert "pb" not in await room.job("1")


async def test_the_token_0_takes_no_lock(room: Room) -> None:
    """It stands for no lock at all."""
    await room.add(record())

    await room.take(token="0")

    assert not await room.client.exists(room.keys.job("1") + ":lock")
    assert await room.ids("active") == ["1"]


async def test_jobs_run_in_the_order_in_which_they_came(room: Room) -> None:
    """The oldest first; the newest of `active` stands left."""
    await room.add(record(), record(), record())

    fetched = await room.take(2)

    assert [job_id for job_id, _ in fetched.jobs] == ["1", "2"]
    assert await room.ids("active") == ["2", "1"]
    assert await room.wait() == ["3"]


async def test_jobs_without_a_priority_run_first(room: Room) -> None:
    """`wait` before `prioritized`; there the lowest number first, and equals as they came."""
    await room.add(record(priority=2), record(priority=1), record(), record(priority=1))

    fetched = await room.take(10)

    assert [job_id for job_id, _ in fetched.jobs] == ["3", "2", "4", "1"]
    assert await room.scores("prioritized") == {}


async def test_an_empty_fetch_forgets_the_counter_of_priorities(room: Room) -> None:
    """`pc` goes when a fetch finds nothing by priority, and not before."""
    await room.add(record(priority=2))
    await room.take()
    assert "pc" in await room.dump()

    await room.take()
    assert "pc" not in await room.dump()


async def test_jobs_that_are_due_join_the_end_of_the_line(room: Room) -> None:
    """Due to the millisecond; in order of their time; `lifo` does not matter; with a priority they go by it."""
    await room.add(
        record(delay=1_000),
        record(delay=500, lifo=True),
        record(delay=500, priority=4),
        record(delay=1_001),
        record(),
    )
    await room.events()

    fetched = await room.take(1, now=NOW + 1_000)

    assert [job_id for job_id, _ in fetched.jobs] == ["5"]
    assert await room.wait() == ["1", "2"]
    assert await room.scores("prioritized") == {"3": 4 * 2**32 + 1}
    assert await room.scores("delayed") == {"4": score(NOW + 1_001)}
    assert (await room.job("1"))["delay"] == (await room.job("3"))["delay"] == "0"
    assert (await room.job("4"))["delay"] == "1001"
    assert await room.events() == [
        "waiting jobId=2 prev=delayed",
        "waiting jobId=3 prev=delayed",
        "waiting jobId=1 prev=delayed",
        "active jobId=5 prev=waiting",
    ]


async def test_a_job_is_never_early(room: Room) -> None:
    """A millisecond before its time it stays, and the fetch says when it is due."""
    await room.add(record(delay=1_000))

    early = await room.take(now=NOW + 999)
    assert (early.jobs, early.due_ms) == ([], NOW + 1_000)

    in_time = await room.take(now=NOW + 1_000)
    assert [job_id for job_id, _ in in_time.jobs] == ["1"]


async def test_an_empty_fetch_changes_nothing(room: Room) -> None:
    """No marker, no event."""
    await room.add(record(delay=1_000))
    before = await room.dump()

    assert (await room.take(5)).due_ms == NOW + 1_000

    assert await room.dump() == before


@pytest.mark.parametrize("meta", [{"paused": "1"}, {"paused": "0"}, {"paused": ""}, {"concurrency": "1"}])
async def test_a_closed_queue_gives_nothing(room: Room, meta: dict[str, str]) -> None:
    """`paused` counts by presence, whatever it says. Delayed jobs that are due join the line all the same."""
    await room.start(record())
    await room.add(record(), record(delay=10))
    await room.set_meta(**meta)
    await room.forget_marker()

    fetched = await room.take(5, now=NOW + 10)

    assert (fetched.jobs, fetched.is_closed) == ([], True)
    assert await room.wait() == ["3", "2"]
    assert await room.marker() == {}


async def test_the_global_concurrency_bounds_a_list(room: Room) -> None:
    """A fetch for many takes what is free, and says that the queue is closed now."""
    await room.start(record())
    await room.add(*(record() for _ in range(5)))
    await room.set_meta(concurrency=3)

    fetched = await room.take(5)

    assert [job_id for job_id, _ in fetched.jobs] == ["2", "3"]
    assert fetched.is_closed
    assert len(await room.ids("active")) == 3


async def test_a_workers_rate_limit_counts_starts(room: Room) -> None:
    """The first start opens the window; a full one answers how long it still lasts."""
    await room.add(*(record() for _ in range(5)))

    fetched = await room.take(5, limit=(2, 60_000))

    assert [job_id for job_id, _ in fetched.jobs] == ["1", "2"]
    assert 55_000 < fetched.limit_ttl_ms <= 60_000
    assert await room.client.get(room.keys.key("limiter")) == "2"
    again = await room.take(1, limit=(2, 60_000))
    assert again.jobs == []
    assert again.limit_ttl_ms > 0
    # A worker without a limit of its own is not concerned.
    assert len((await room.take(1)).jobs) == 1


async def test_of_two_rate_limits_the_queues_number_and_the_workers_window_count(room: Room) -> None:
    """`max` is the queue's if it has one, `duration` the worker's."""
    await room.set_meta(max=1, duration=1_000)
    await room.add(*(record() for _ in range(5)))

    fetched = await room.take(5, limit=(4, 60_000))

    assert len(fetched.jobs) == 1
    assert fetched.limit_ttl_ms > 55_000


async def test_the_queues_own_rate_limit_holds_for_all(room: Room) -> None:
    """A worker without a limit obeys `meta`."""
    await room.set_meta(max=2, duration=60_000)
    await room.add(*(record() for _ in range(5)))

    fetched = await room.take(5)

    assert len(fetched.jobs) == 2
    assert fetched.limit_ttl_ms > 55_000


async def test_a_job_that_will_only_be_failed_costs_no_start(room: Room) -> None:
    """A deferred failure does not count against the rate limit."""
    await room.add(record(), record(), record())
    await room.client.hset(room.keys.job("1"), "defa", "stalled")

    fetched = await room.take(5, limit=(1, 60_000))

    assert [job_id for job_id, _ in fetched.jobs] == ["1", "2"]


async def test_old_wake_up_markers_are_thrown_away(room: Room) -> None:
    """Ids in `wait` that begin with `0:` are no jobs."""
    await room.add(record())
    await room.client.lpush(room.keys.key("wait"), "0:x")
    await room.client.rpush(room.keys.key("wait"), "0:123")

    fetched = await room.take(5)

    assert [job_id for job_id, _ in fetched.jobs] == ["1"]
    assert await room.wait() == []
    assert await room.ids("active") == ["1"]


async def test_an_id_without_a_record_is_dropped(room: Room) -> None:
    """Nobody is handed a job without a name; the next one is taken."""
    await room.add(record(), record())
    await room.client.delete(room.keys.job("1"))

    fetched = await room.take(2)

    assert [job_id for job_id, _ in fetched.jobs] == ["2"]
    assert await room.ids("active") == ["2"]
    assert "1" not in await room.dump()


async def test_very_many_that_are_due_are_promoted_in_steps(room: Room) -> None:
    """A call promotes 250, in the order in which they are due; the next call goes on."""
    for _ in range(3):
        await room.add(*(record(delay=1) for _ in range(400)))

    fetched = await room.take(1, now=NOW + 1)

    assert [job_id for job_id, _ in fetched.jobs] == ["1"]
    assert len(await room.scores("delayed")) == 950
    assert await room.wait() == [str(n) for n in range(250, 1, -1)]
    await room.take(1, now=NOW + 1)
    assert len(await room.scores("delayed")) == 700


async def test_a_huge_fetch_takes_all(room: Room) -> None:
    """Lists beyond what Lua can unpack at once are no trouble."""
    for _ in range(5):
        await room.add(*(record() for _ in range(500)))

    fetched = await room.take(2_200)

    assert [job_id for job_id, _ in fetched.jobs] == [str(n) for n in range(1, 2_201)]
