"""move_to_delayed: active -> delayed."""

from __future__ import annotations

import pytest

from toril.errors import JobNotFoundError, JobNotInStateError, LockLostError

from .room import NOW, TOKEN, Room, record, score


async def test_a_failed_attempt_waits_for_its_next(room: Room) -> None:
    """The attempt is counted and its reason kept; the job is due from now on, and the alarm is set."""
    await room.start(record())
    await room.client.sadd(room.keys.key("stalled"), "1")
    await room.forget_marker()
    before = await room.job("1")

    await room.scripts.move_to_delayed(
        NOW + 10, "1", TOKEN, 1_000, counts=True, failed_reason="boom", stacktrace='["trace"]'
    )

    due = NOW + 1_010
    assert await room.job("1") == {
        **before,
        "delay": "1000",
        "atm": "1",
        "failedReason": "boom",
        "stacktrace": '["trace"]',
    }
    assert await room.scores("delayed") == {"1": score(due)}
    assert await room.marker() == {"1": due}
    dump = await room.dump()
    assert {"active", "stalled", "1:lock"} & dump.keys() == set()
    assert await room.events() == [f"delayed jobId=1 delay={due}"]


async def test_a_job_that_asks_to_run_later_has_not_failed(room: Room) -> None:
    """No attempt is counted and no reason written."""
    await room.start(record())
    before = await room.job("1")

    await room.scripts.move_to_delayed(NOW, "1", TOKEN, 1_000, counts=False)

    assert await room.job("1") == {**before, "delay": "1000"}


async def test_a_job_that_no_processor_has_seen_was_not_started(room: Room) -> None:
    """The start that the fetch has counted is taken back."""
    await room.start(record())
    before = await room.job("1")
    assert before["ats"] == "1"

    await room.scripts.move_to_delayed(NOW, "1", TOKEN, 1_000, counts=False, was_started=False)

    assert await room.job("1") == {**before, "delay": "1000", "ats": "0"}


async def test_a_delay_of_nothing_is_due_at_once(room: Room) -> None:
    """It is due now, and the next fetch takes it."""
    await room.start(record())

    await room.scripts.move_to_delayed(NOW, "1", TOKEN, 0, counts=False)

    assert await room.scores("delayed") == {"1": score(NOW)}
    assert [job_id for job_id, _ in (await room.take(now=NOW)).jobs] == ["1"]


async def test_equal_times_keep_their_order(room: Room) -> None:
    """A second job that is due in the same millisecond comes behind the first."""
    await room.start(record(), record())

    await room.scripts.move_to_delayed(NOW, "2", TOKEN, 500, counts=True)
    await room.scripts.move_to_delayed(NOW, "1", TOKEN, 500, counts=True)

    assert await room.scores("delayed") == {"2": score(NOW + 500), "1": score(NOW + 500, 1)}


async def test_refusals_change_nothing(room: Room) -> None:
    """No such job, no lock, somebody else's lock."""
    await room.start(record(), record())
    await room.client.delete(room.keys.job("2") + ":lock")
    before = await room.dump()

    for job_id, token, refused in (
        ("no-such", TOKEN, JobNotFoundError),
        ("2", TOKEN, LockLostError),
        ("1", "worker:other", LockLostError),
    ):
        with pytest.raises(refused):
            await room.scripts.move_to_delayed(
                NOW, job_id, token, 5, counts=True, failed_reason="x", stacktrace="[]"
            )

    assert await room.dump() == before


async def test_a_job_that_is_not_active_is_not_delayed(room: Room) -> None:
    """It joins no set, and nothing is announced."""
    await room.start(record())
    await room.client.delete(room.keys.key("active"))

    with pytest.raises(JobNotInStateError):
        await room.scripts.move_to_delayed(NOW, "1", TOKEN, 5, counts=True)

    assert "delayed" not in await room.dump()
    assert "atm" not in await room.job("1")
    assert await room.events() == []
