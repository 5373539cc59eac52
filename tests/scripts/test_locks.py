"""extend_locks, reclaim_locks and adopt_jobs: active stays active."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from toril.scripts import Start

from .room import NOW, TOKEN, Room, end, record

OURS = Start("1", TOKEN, "1", str(NOW))
"""The first start of the first job, by which a worker claims it."""


async def test_a_kept_lock_lasts_from_now(room: Room) -> None:
    """Its time begins anew, and the job is no suspect any more."""
    await room.start(record(), record())
    await room.client.sadd(room.keys.key("stalled"), "1", "2")

    assert await room.scripts.extend_locks(90_000, [("1", TOKEN)]) == []

    assert 85_000 < await room.client.pttl(room.keys.job("1") + ":lock") <= 90_000
    assert await room.client.pttl(room.keys.job("2") + ":lock") <= 30_000
    assert (await room.dump())["stalled"] == ["2"]


async def test_a_lock_that_is_gone_is_not_made_anew(room: Room) -> None:
    """Run out, or somebody else's: the answer names the job, and nothing changes. Others of the list are kept."""
    await room.start(record(), record(), record())
    await room.client.delete(room.keys.job("1") + ":lock")
    await room.client.set(room.keys.job("2") + ":lock", "worker:other", px=5_000)
    await room.client.sadd(room.keys.key("stalled"), "1", "2")
    before = await room.dump()

    lost = await room.scripts.extend_locks(
        90_000, [("1", TOKEN), ("2", TOKEN), ("3", TOKEN), ("no-such", TOKEN)]
    )

    assert lost == ["1", "2", "no-such"]
    assert await room.dump() == before
    assert await room.client.pttl(room.keys.job("2") + ":lock") <= 5_000
    assert await room.client.pttl(room.keys.job("3") + ":lock") > 85_000


async def test_a_lock_that_ran_out_is_taken_again(room: Room) -> None:
    """The job is still active and nobody has it: its worker is back, and it is no suspect any more."""
    await room.start(record(), record())
    for job_id in ("1", "2"):
        await room.client.delete(room.keys.job(job_id) + ":lock")
    await room.client.sadd(room.keys.key("stalled"), "1", "2")

    assert await room.scripts.reclaim_locks(90_000, [OURS]) == []

    assert 85_000 < await room.client.pttl(room.keys.job("1") + ":lock") <= 90_000
    assert (await room.dump())["stalled"] == ["2"]
    assert await room.scripts.reclaim_locks(90_000, [OURS]) == [], "a second call, after a lost answer"
    assert (await room.finish(end("1")))[0] == [0]


async def taken_back(room: Room) -> None:
    await room.client.delete(room.keys.job("1") + ":lock", room.keys.key("stalled-check"))
    await room.client.sadd(room.keys.key("stalled"), "1")
    assert await room.scripts.move_stalled_jobs_to_wait(NOW, 1, 30_000) == ["1"]


async def started_by_another(room: Room) -> None:
    await taken_back(room)
    await room.take(token="worker:2", now=NOW + 1)


async def started_by_another_who_fell_silent(room: Room) -> None:
    await started_by_another(room)
    await room.client.delete(room.keys.job("1") + ":lock")


async def ended(room: Room) -> None:
    await room.finish(end("1"))


async def removed(room: Room) -> None:
    await room.client.delete(room.keys.job("1") + ":lock")
    assert await room.scripts.remove_job("1", with_children=True)


async def removed_and_added_again(room: Room) -> None:
    await removed(room)
    await room.add(record("1"))
    await room.take(token="worker:2", now=NOW + 1)
    await room.client.delete(room.keys.job("1") + ":lock")


@pytest.mark.parametrize(
    "what_happened",
    [
        taken_back,
        started_by_another,
        started_by_another_who_fell_silent,
        ended,
        removed,
        removed_and_added_again,
    ],
)
async def test_a_job_that_has_gone_on_without_its_worker_is_lost(
    room: Room, what_happened: Callable[[Room], Awaitable[None]]
) -> None:
    """Whoever had it before is told so, and changes nothing, also where the next worker's lock has run out in turn."""
    await room.start(record())
    await what_happened(room)
    before = await room.dump()

    assert await room.scripts.reclaim_locks(90_000, [OURS]) == ["1"]

    assert await room.dump() == before


async def test_jobs_of_a_lost_answer_are_found_by_their_token(room: Room) -> None:
    """The active jobs with this token, in the order of the fetch, with their records as they are now."""
    await room.start(record(), record(), token="worker:1")
    await room.start(record(), token="worker:11")
    await room.add(record())
    before = await room.dump()

    found = await room.scripts.adopt_jobs("worker:1")

    assert [job_id for job_id, _ in found] == ["1", "2"]
    assert found[0][1] == await room.job("1")
    assert found[0][1]["ats"] == "1"
    assert await room.scripts.adopt_jobs("worker:2") == []
    assert await room.dump() == before
