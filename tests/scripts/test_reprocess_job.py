"""reprocess_job: completed or failed -> waiting or prioritized."""

from __future__ import annotations

import pytest

from toril.errors import JobNotFoundError, JobNotInStateError

from .room import Room, end, record


async def failed_job(room: Room, **options: int) -> dict[str, str]:
    await room.start(record(**options))  # type: ignore[arg-type]
    await room.finish(end("1", "failed", "boom", stacktrace='["trace"]'))
    await room.forget_marker()
    await room.events()
    return await room.job("1")


async def test_a_failed_job_runs_again(room: Room) -> None:
    """What its end left is gone; what its attempts left stays."""
    before = await failed_job(room)
    await room.add(record())
    await room.events()

    await room.scripts.reprocess_job("1", "failed")

    for field in ("finishedOn", "processedOn", "failedReason"):
        before.pop(field)
    assert await room.job("1") == before
    assert (before["atm"], before["ats"], before["stacktrace"]) == ("1", "1", '["trace"]')
    assert await room.wait() == ["1", "2"]
    assert "failed" not in await room.dump()
    assert await room.sleepers_are_woken()
    assert await room.events() == ["waiting jobId=1 prev=failed"]


async def test_a_completed_job_runs_again(room: Room) -> None:
    """Its return value is gone."""
    await room.start(record())
    await room.finish(end("1"))
    await room.events()

    await room.scripts.reprocess_job("1", "completed")

    assert {"finishedOn", "processedOn", "returnvalue"} & (await room.job("1")).keys() == set()
    assert await room.events() == ["waiting jobId=1 prev=completed"]


async def test_attempts_can_be_forgotten(room: Room) -> None:
    """Those made, those started, each by its own wish."""
    await failed_job(room)

    await room.scripts.reprocess_job("1", "failed", reset_attempts_made=True, reset_attempts_started=True)

    assert {"atm", "ats"} & (await room.job("1")).keys() == set()


async def test_a_lifo_job_is_the_next_to_run(room: Room) -> None:
    """It joins the right end."""
    await failed_job(room)
    await room.add(record())

    await room.scripts.reprocess_job("1", "failed", lifo=True)

    assert await room.wait() == ["2", "1"]


async def test_a_priority_is_kept(room: Room) -> None:
    """It goes to `prioritized`."""
    await failed_job(room, priority=4)

    await room.scripts.reprocess_job("1", "failed")

    assert list(await room.scores("prioritized")) == ["1"]


async def test_refusals_change_nothing(room: Room) -> None:
    """No such job; a job in another state; a second retry."""
    await failed_job(room)
    before = await room.dump()

    with pytest.raises(JobNotFoundError):
        await room.scripts.reprocess_job("no-such", "failed")
    with pytest.raises(JobNotInStateError):
        await room.scripts.reprocess_job("1", "completed")
    assert await room.dump() == before

    await room.scripts.reprocess_job("1", "failed")
    before = await room.dump()
    with pytest.raises(JobNotInStateError):
        await room.scripts.reprocess_job("1", "failed")
    assert await room.dump() == before
