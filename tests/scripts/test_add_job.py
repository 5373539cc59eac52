"""add_job: nowhere -> waiting, prioritized or delayed."""

from __future__ import annotations

import pytest

from .room import NOW, Room, record, score


async def test_a_standard_job_waits_last_in_line(room: Room) -> None:
    """It is stored, joins the left end of `wait`, is announced, and wakes one worker."""
    ids = await room.add(record(), record())

    assert ids == ["1", "2"]
    assert await room.dump() == {
        "id": "2",
        "meta": {"opts.maxLenEvents": "10000"},
        "wait": ["2", "1"],
        "marker": [("0", 0.0)],
        **{
            job_id: {
                "name": "paint",
                "data": '{"n":1}',
                "opts": '{"attempts":0}',
                "timestamp": str(NOW),
                "delay": "0",
                "priority": "0",
            }
            for job_id in ids
        },
        "events": [
            "added jobId=1 name=paint",
            "waiting jobId=1",
            "added jobId=2 name=paint",
            "waiting jobId=2",
        ],
    }


async def test_a_lifo_job_is_the_next_to_run(room: Room) -> None:
    """It joins the right end of `wait`."""
    await room.add(record(), record())
    await room.add(record(lifo=True))

    assert await room.wait() == ["2", "1", "3"]


async def test_a_prioritized_job_is_ordered_by_priority_and_arrival(room: Room) -> None:
    """Its score is priority * 2^32 plus a counter."""
    await room.add(record(priority=5), record(priority=5), record(priority=1))

    assert await room.scores("prioritized") == {"3": 2**32 + 3, "1": 5 * 2**32 + 1, "2": 5 * 2**32 + 2}
    assert (await room.dump())["pc"] == "3"
    assert await room.sleepers_are_woken()
    assert (await room.job("1"))["priority"] == "5"
    assert await room.events() == [
        line for job_id in "123" for line in (f"added jobId={job_id} name=paint", f"waiting jobId={job_id}")
    ]


async def test_a_delayed_job_counts_from_its_timestamp(room: Room) -> None:
    """Its score is the due time * 4096, then a sequence for equal times; the alarm has the earliest."""
    await room.add(record(delay=60_000), record(delay=60_000, priority=3), record(delay=5_000))

    due = NOW + 60_000
    assert await room.scores("delayed") == {"3": score(NOW + 5_000), "1": score(due), "2": score(due, 1)}
    assert await room.marker() == {"1": NOW + 5_000}
    assert await room.wait() == []
    assert (await room.job("1"))["delay"] == "60000"
    assert await room.events() == [
        "added jobId=1 name=paint",
        f"delayed jobId=1 delay={due}",
        "added jobId=2 name=paint",
        f"delayed jobId=2 delay={due}",
        "added jobId=3 name=paint",
        f"delayed jobId=3 delay={NOW + 5_000}",
    ]


async def test_jobs_due_in_one_millisecond_share_the_last_place(room: Room) -> None:
    """A millisecond has 4096 places; whoever comes later shares the last, and stays in its millisecond."""
    await room.client.zadd(room.keys.key("delayed"), {"x": score(NOW + 1, 4095)})

    await room.add(record(delay=1))

    assert await room.scores("delayed") == {"x": score(NOW + 1, 4095), "1": score(NOW + 1, 4095)}


async def test_a_taken_id_adds_nothing(room: Room) -> None:
    """The job of this id stays as it is; the caller gets the id, listeners hear `duplicated`."""
    await room.add(record("order-1"))
    before = await room.dump()

    assert await room.add(record("order-1", name="other", data="{}", delay=5, priority=2)) == ["order-1"]

    after = await room.dump()
    assert after.pop("events") == [*before.pop("events"), "duplicated jobId=order-1"]
    assert after.pop("id") == "2"
    assert before.pop("id") == "1"
    assert after == before


async def test_an_id_is_taken_within_a_list_too(room: Room) -> None:
    """Of two members with one id the first is added."""
    ids = await room.add(record("a", name="first"), record("a", name="second"), record())

    assert ids == ["a", "a", "3"]
    assert await room.wait() == ["3", "a"]
    assert (await room.job("a"))["name"] == "first"


@pytest.mark.parametrize("meta", [{"paused": "1"}, {"concurrency": "1"}])
async def test_a_closed_queue_takes_jobs_and_wakes_nobody(room: Room, meta: dict[str, str]) -> None:
    """Paused, or with as many active as it allows: jobs are stored, the marker is not written."""
    await room.start(record())
    await room.set_meta(**meta)
    await room.forget_marker()

    await room.add(record(), record(lifo=True), record(priority=1))
    assert await room.marker() == {}

    # The alarm is set all the same: it tells of a time, not of a job.
    await room.add(record(delay=1_000))
    assert await room.marker() == {"1": NOW + 1_000}
    assert await room.wait() == ["2", "3"]


async def test_a_closed_queue_with_room_left_is_open(room: Room) -> None:
    """The global concurrency closes a queue only when it is reached."""
    await room.start(record())
    await room.set_meta(concurrency=2)
    await room.forget_marker()

    await room.add(record())

    assert await room.sleepers_are_woken()


async def test_generated_ids_are_written_in_full(room: Room) -> None:
    """Large numbers have all their digits: no exponents."""
    await room.client.set(room.keys.key("id"), str(299_999_999_999_999))

    assert await room.add(record()) == ["300000000000000"]
    assert "300000000000000" in await room.dump()


async def test_the_stream_is_cut_to_what_meta_says(room: Room) -> None:
    """`opts.maxLenEvents` bounds the stream, about."""
    await room.set_meta(**{"opts.maxLenEvents": "100"})

    for _ in range(5):
        await room.add(*(record() for _ in range(200)))

    assert await room.client.xlen(room.keys.key("events")) < 400


async def test_text_is_stored_as_it_is(room: Room) -> None:
    """Data and options pass unread: any text comes back."""
    data, options = '{"emoji":"🐂","quote":"\\"","big":1e400}', '{"attempts":0,"x":[]}'

    (job_id,) = await room.add(record(data=data, options=options, name="näme: x"))

    job = await room.job(job_id)
    assert (job["data"], job["opts"], job["name"]) == (data, options, "näme: x")
