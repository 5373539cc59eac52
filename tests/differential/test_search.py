"""The search itself: it draws the same for the same seed, and shortens what tells the clients apart."""

from __future__ import annotations

from typing import Any

import pytest

from .bench import MOVES, Bench
from .operations import NodeSide, Operation, TorilSide
from .search import draw, find, shorten
from .steps import add, complete, promote, take, time_passes
from .strategies import EVERYTHING, programs


async def test_a_divergence_is_shortened(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is what the difference needs: here the job whose record one side changes, without its options."""

    async def nothing(side: NodeSide, **_: Any) -> None: ...

    async def meddle(side: TorilSide) -> None:
        if side.client.exists(side.keys.job("x")):
            side.client.hset(side.keys.job("x"), "name", "other")

    monkeypatch.setitem(MOVES, "meddle", Operation(nothing, meddle))
    program = [
        add(), add(delay=5), take(), add(jobId="x", priority=3, attempts=2), time_passes(5), complete("1"),
        promote("2"), ("meddle", {}), add(), take(),
    ]  # fmt: skip

    found = await find(bench, program)
    assert found is not None
    short = await shorten(bench, found)

    assert short.program == [add(jobId="x"), ("meddle", {})]
    assert "q:x.name: node 'a', toril 'other'" in str(short)


def test_a_seed_says_which_programs() -> None:
    """What was found can be found again."""
    assert draw(programs(EVERYTHING, 20), 5, first=7) == draw(programs(EVERYTHING, 20), 5, first=7)
    assert draw(programs(EVERYTHING, 20), 5, first=7) != draw(programs(EVERYTHING, 20), 5, first=8)
