"""Waiting awake: where it is quicker, and nowhere else."""

from __future__ import annotations

import asyncio
import time

import pytest

from toril import Connection
from toril._vigil import LONGEST, Vigil


def _vigil() -> Vigil:
    loop = asyncio.new_event_loop()
    loop.close()
    return Vigil(loop)


def shares(awake: float, asleep: float, calls: int = 2000) -> float:
    """Return the share of calls that are waited for awake, where either way takes so many seconds."""
    vigil = _vigil()
    chosen: list[bool] = []
    for _ in range(calls):
        is_awake = vigil.is_worth_it()
        chosen.append(is_awake)
        vigil.note(awake if is_awake else asleep, is_awake)
    return sum(chosen) / len(chosen)


@pytest.mark.parametrize(
    ("awake", "asleep", "is_worth_it"),
    [
        (30e-6, 60e-6, True),  # next door, on a machine that falls asleep
        (30e-6, 32e-6, False),  # next door, where waking up is cheap
        (45e-6, 30e-6, False),  # others want the processor
        (500e-6, 530e-6, False),  # far away
        (2.0, 5.0, False),  # a command that blocks
    ],
)
def test_the_quicker_way_is_taken_and_the_other_is_tried_now_and_then(
    awake: float, asleep: float, is_worth_it: bool
) -> None:
    """Of 32 calls one finds out whether that is still so."""
    share = shares(awake, asleep)
    assert 0.01 < (1 - share if is_worth_it else share) < 0.05


def test_it_notices_that_things_have_changed() -> None:
    """Somebody else has taken the other processor, and is gone again."""
    vigil = _vigil()
    for awake, expected in ((30e-6, True), (90e-6, False), (30e-6, True)):
        for _ in range(1500):
            is_awake = vigil.is_worth_it()
            vigil.note(awake if is_awake else 60e-6, is_awake)
        assert sum(vigil.is_worth_it() for _ in range(32)) == (31 if expected else 1)


async def test_a_server_that_is_silent_is_waited_for_asleep(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fraction of a millisecond, whatever has been learnt before."""
    monkeypatch.setattr(Vigil, "is_worth_it", lambda self: True)
    async with Connection(server_url) as connection:
        await connection.execute("PING")
        used, began = time.process_time(), time.monotonic()
        await connection.execute("BLPOP", "nobody:fills:this", "0.5")
        took = time.monotonic() - began
        # Not a timed test: it burnt all of this time, or next to nothing.
        assert time.process_time() - used < max(took / 2, 10 * LONGEST)
        await asyncio.gather(*(connection.execute("PING") for _ in range(50)))
