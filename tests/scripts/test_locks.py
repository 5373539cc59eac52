"""extend_locks and adopt_jobs: active stays active."""

from __future__ import annotations

from .room import TOKEN, Room, record


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
