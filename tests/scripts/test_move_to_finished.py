"""move_to_finished: active -> completed or failed; then the next fetch."""

from __future__ import annotations

import json

from toril.options import KeepRule

from .room import NOW, Room, end, failure, record

KEEP_ALL = KeepRule()
REMOVE = KeepRule(count="0")


async def test_a_completed_job_is_kept_with_its_result(room: Room) -> None:
    """It leaves `active`, its lock and its mark as a suspect; the record says what came out, and when."""
    await room.start(record(), record())
    await room.client.sadd(room.keys.key("stalled"), "1", "2")
    before = await room.job("1")

    codes, fetched = await room.finish(end("1", value='{"ok":true}'), now=NOW + 50)

    assert (codes, fetched.jobs) == ([0], [])
    assert await room.job("1") == {
        **before,
        "atm": "1",
        "returnvalue": '{"ok":true}',
        "finishedOn": str(NOW + 50),
    }
    assert await room.scores("completed") == {"1": NOW + 50}
    dump = await room.dump()
    assert (dump["active"], dump["stalled"]) == (["2"], ["2"])
    assert "1:lock" not in dump
    assert await room.events() == ['completed jobId=1 returnvalue={"ok":true} prev=active']


async def test_a_failed_job_is_kept_with_its_reason(room: Room) -> None:
    """Reason as text, traces as JSON; a deferred failure has had its day."""
    await room.start(record(), record())
    await room.client.hset(room.keys.job("1"), "defa", "stalled")
    before = await room.job("1")

    codes, _ = await room.finish(failure("1", attempts=3), now=NOW + 50)

    before.pop("defa")
    assert codes == [0]
    assert await room.job("1") == {
        **before,
        "atm": "1",
        "failedReason": "boom",
        "stacktrace": '["trace"]',
        "finishedOn": str(NOW + 50),
    }
    assert await room.scores("failed") == {"1": NOW + 50}
    assert await room.events() == ["failed jobId=1 failedReason=boom prev=active"]


async def test_the_last_attempt_is_announced(room: Room) -> None:
    """`retries-exhausted` follows `failed` when the attempts are used up, not when the job fails early."""
    await room.start(record(), record(), record())
    await room.client.hset(room.keys.job("1"), "atm", "2")

    await room.finish(failure("1", attempts=3), failure("2", attempts=0), now=NOW)

    assert await room.events() == [
        "failed jobId=1 failedReason=boom prev=active",
        "retries-exhausted jobId=1 attemptsMade=3",
        "failed jobId=2 failedReason=boom prev=active",
        "retries-exhausted jobId=2 attemptsMade=1",
    ]


async def test_the_last_job_drains_the_queue(room: Room) -> None:
    """`drained` comes once, when nothing waits, runs, or is due later."""
    await room.start(record(), record())

    await room.finish(end("1"), want=5)
    assert [event for event in await room.events() if event.startswith("drained")] == []

    await room.finish(end("2"), want=5)
    assert (await room.events())[-1] == "drained"


async def test_a_queue_with_a_delayed_job_is_not_drained(room: Room) -> None:
    """The answer to the fetch is a due time, and that is an answer."""
    await room.start(record())
    await room.add(record(delay=1_000))
    await room.events()

    _, fetched = await room.finish(end("1"), want=1, now=NOW)

    assert fetched.due_ms == NOW + 1_000
    assert "drained" not in await room.events()


async def test_a_worker_that_wants_none_hears_of_drained_all_the_same(room: Room) -> None:
    """Without a fetch only what waits and runs counts."""
    await room.start(record())
    await room.add(record(delay=1_000))
    await room.events()

    await room.finish(end("1"), want=0, now=NOW)

    assert (await room.events())[-1] == "drained"


async def test_a_closed_queue_is_not_drained(room: Room) -> None:
    """`closed` is an answer too."""
    await room.start(record())
    await room.set_meta(paused=1)

    _, fetched = await room.finish(end("1"), want=1)

    assert fetched.is_closed
    assert "drained" not in await room.events()


async def test_the_next_job_comes_along(room: Room) -> None:
    """One call finishes and fetches; the events come in that order, and the new lock has the call's token."""
    await room.start(record())
    await room.add(record(), record(), record())
    await room.events()

    codes, fetched = await room.finish(end("1"), want=2, token="worker:9")

    assert codes == [0]
    assert [job_id for job_id, _ in fetched.jobs] == ["2", "3"]
    assert await room.client.get(room.keys.job("3") + ":lock") == "worker:9"
    assert await room.events() == [
        'completed jobId=1 returnvalue="done" prev=active',
        "active jobId=2 prev=waiting",
        "active jobId=3 prev=waiting",
    ]


async def test_a_finish_frees_the_slot_for_its_own_fetch(room: Room) -> None:
    """Under a global concurrency the job that ends makes room for the next."""
    await room.set_meta(concurrency=1)
    await room.start(record())
    await room.add(record(), record())

    _, fetched = await room.finish(end("1"), want=5)

    assert [job_id for job_id, _ in fetched.jobs] == ["2"]
    assert fetched.is_closed


async def test_a_removed_job_leaves_nothing(room: Room) -> None:
    """With a count of 0 neither the record nor its logs stay, and it joins no set."""
    await room.start(record(), record())
    await room.client.rpush(room.keys.job("1") + ":logs", "row")

    codes, _ = await room.finish(end("1", keep=REMOVE), failure("2", keep=REMOVE))

    assert codes == [0, 0]
    dump = await room.dump()
    assert {key for key in dump if key[0] in "12"} == set()
    assert "completed" not in dump
    assert "failed" not in dump
    assert (await room.events())[:2] == [
        'completed jobId=1 returnvalue="done" prev=active',
        "failed jobId=2 failedReason=boom prev=active",
    ]


async def test_only_the_newest_are_kept(room: Room) -> None:
    """A count keeps so many, this one among them; of the others nothing stays, and no event tells."""
    ids = await room.start(*(record() for _ in range(5)))
    await room.client.rpush(room.keys.job("1") + ":logs", "row")
    for number, job_id in enumerate(ids):
        await room.finish(end(job_id, keep=KeepRule(count="2")), now=NOW + number)

    assert await room.scores("completed") == {"4": NOW + 3, "5": NOW + 4}
    assert {key for key in await room.dump() if key[0].isdigit()} == {"4", "5"}
    assert not [event for event in await room.events() if event.startswith(("removed", "cleaned"))]


async def test_failed_jobs_are_kept_by_their_own_rule(room: Room) -> None:
    """Retention looks at the set that the job joins, not at the other."""
    await room.start(record(), record(), record())
    await room.finish(end("1"), now=NOW)
    await room.finish(failure("2"), now=NOW + 1)
    await room.finish(failure("3", keep=KeepRule(count="1")), now=NOW + 2)

    assert await room.scores("completed") == {"1": NOW}
    assert await room.scores("failed") == {"3": NOW + 2}


async def test_the_old_are_forgotten(room: Room) -> None:
    """An age in seconds, by the time of the call; exactly as old is too old."""
    await room.start(*(record() for _ in range(4)))
    await room.finish(end("1"), now=NOW)
    await room.finish(end("2"), now=NOW + 1)
    await room.finish(end("3"), now=NOW + 9_000)
    await room.finish(end("4", keep=KeepRule(count="", age="10")), now=NOW + 10_000)

    assert await room.scores("completed") == {"2": NOW + 1, "3": NOW + 9_000, "4": NOW + 10_000}
    assert "1" not in await room.dump()


async def test_a_limit_bounds_what_one_call_forgets(room: Room) -> None:
    """Of those too old at most `limit` go, the newest of them first; later calls take the others."""
    await room.start(*(record() for _ in range(7)))
    for number in range(5):
        await room.finish(end(str(number + 1)), now=NOW + number)
    rule = KeepRule(count="", age="10", limit="2")

    await room.finish(end("6", keep=rule), now=NOW + 60_000)
    assert sorted(await room.scores("completed")) == ["1", "2", "3", "6"]

    await room.finish(end("7", keep=rule), now=NOW + 60_001)
    assert sorted(await room.scores("completed")) == ["1", "6", "7"]


async def test_age_and_count_are_applied_both(room: Room) -> None:
    """First what is too old, then what is too many."""
    await room.start(*(record() for _ in range(5)))
    for number in range(4):
        await room.finish(end(str(number + 1)), now=NOW + number * 10_000)

    await room.finish(end("5", keep=KeepRule(count="2", age="25")), now=NOW + 40_000)

    assert sorted(await room.scores("completed")) == ["4", "5"]


async def test_refusals_change_nothing(room: Room) -> None:
    """No such job, no lock, somebody else's lock: an answer each, and everything stays as it was."""
    await room.start(record(), record(), record())
    await room.client.delete(room.keys.job("2") + ":lock")
    before = await room.dump()

    codes, _ = await room.finish(
        end("no-such"), end("2"), end("3", token="worker:other"), failure("3", token="x")
    )

    assert codes == [-1, -2, -6, -6]
    assert await room.dump() == before


async def test_a_job_that_is_not_active_cannot_end(room: Room) -> None:
    """Its claim is gone with the call, as BullMQ has it; it joins no set, and nothing is announced."""
    await room.start(record())
    await room.client.delete(room.keys.key("active"))

    codes, _ = await room.finish(end("1"))

    dump = await room.dump()
    assert codes == [-3]
    assert "completed" not in dump
    assert "1:lock" not in dump
    assert await room.events() == []


async def test_a_refused_member_stops_nobody(room: Room) -> None:
    """The others of the list end, and the fetch is done."""
    await room.start(record(), record())
    await room.add(record())

    codes, fetched = await room.finish(end("1"), end("gone"), end("2"), want=1)

    assert codes == [0, -1, 0]
    assert sorted(await room.scores("completed")) == ["1", "2"]
    assert [job_id for job_id, _ in fetched.jobs] == ["3"]


async def test_a_job_ends_once(room: Room) -> None:
    """Of two ends of one job in a list, the second is refused."""
    await room.start(record())

    codes, _ = await room.finish(end("1", value="1"), failure("1"))

    assert codes == [0, -2]
    assert (await room.job("1"))["returnvalue"] == "1"
    assert "failed" not in await room.dump()


async def test_a_parent_cannot_complete_before_its_children(room: Room) -> None:
    """Open or failed children refuse a completion; the lock is kept, so that the worker can say what next."""
    await room.start(record(), record())
    await room.client.sadd(room.keys.job("1") + ":dependencies", "bull:kid:1")
    await room.client.zadd(room.keys.job("2") + ":unsuccessful", {"bull:kid:2": 1})
    before = await room.dump()

    codes, _ = await room.finish(end("1"), end("2"))

    assert codes == [-4, -9]
    assert await room.dump() == before
    # Failing is allowed.
    codes, _ = await room.finish(failure("1"))
    assert codes == [0]


async def test_the_stream_is_trimmed_at_an_end(room: Room) -> None:
    """Events that are appended without a bound are cut here."""
    await room.set_meta(**{"opts.maxLenEvents": "100"})
    await room.start(record())
    pipeline = room.client.pipeline()
    for number in range(1_000):
        pipeline.xadd(room.keys.key("events"), {"event": "noise", "n": number})
    await pipeline.execute()

    await room.finish(end("1"))

    assert await room.client.xlen(room.keys.key("events")) < 400
    assert (await room.events())[-2:] == ['completed jobId=1 returnvalue="done" prev=active', "drained"]


async def test_a_long_value_comes_through(room: Room) -> None:
    """Return values and traces of a megabyte are no trouble."""
    await room.start(record(), record())
    value = json.dumps("x" * 1_000_000)

    codes, _ = await room.finish(end("1", value=value), end("2", "failed", "y" * 100_000, stacktrace=value))

    assert codes == [0, 0]
    assert (await room.job("1"))["returnvalue"] == value
    assert (await room.job("2"))["stacktrace"] == value
