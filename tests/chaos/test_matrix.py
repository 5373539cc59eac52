"""The smoke subset of the fault matrix: real processes, a real server, small loads. `make chaos` plays all of it."""

from __future__ import annotations

import json
import random

import pytest

from chaos.cells import CELLS, SMOKE
from chaos.matrix import OVER, play, play_all
from toril.embedded import find_binary
from toril.errors import ConfigurationError

SIZE = 0.2
# Nothing here measures speed: a busy machine may be slow to come back, but it must come back.
SLACK = 5.0


@pytest.mark.parametrize("key", SMOKE)
async def test_a_fault_loses_nothing_and_fails_nothing(key: str) -> None:
    """After the fault the ledger, the server and its events tell the same story."""
    try:
        find_binary()
    except ConfigurationError as error:
        pytest.skip(str(error))
    line = await play(CELLS[key], "toril", random.randrange(2**31), SIZE, SLACK)
    if line["status"] == "skip":
        pytest.skip(line["note"])
    assert line["violations"] == [], json.dumps(line, indent=1)
    assert line["acked"] > 20


async def test_when_time_is_over_what_is_left_is_not_green() -> None:
    """A matrix that may take no time plays nothing, and says so in the line of each cell."""
    told: list[str] = []
    lines = await play_all(
        [("1", "toril"), ("36", "toril")],
        seed=1,
        scale=SIZE,
        slack=SLACK,
        at_once=2,
        tell=lambda line: told.append(line["cell"]),
        minutes=0,
        expected={},
    )

    # What needs the machine alone comes first.
    assert told == ["36", "1"]
    assert [(line["status"], line["note"]) for line in lines] == [("skip", OVER)] * 2
