"""Random programs: the same few each time, while `make differential` looks further, at others on each run.

A program that told the clients apart once belongs into `programs_of_found.py`.
"""

from __future__ import annotations

import pytest

from .bench import MOVES, Bench
from .search import draw, find, shorten
from .strategies import EVERYTHING, LIFE, SCHEDULES, USE, programs

WRITTEN_ONLY = {
    # A record that is gone is a fault of its own: both then answer with jobs that have no name.
    "record_vanishes",
}
SUBJECTS = {
    "the life of jobs": (programs(LIFE, 30), 100),
    "queues, flows and limits": (programs(USE, 40), 150),
    "job schedulers": (programs(SCHEDULES, 40), 100),
    # In parts, for several processors.
    **{f"everything, part {part}": (programs(EVERYTHING, 60), 250) for part in (1, 2, 3)},
}


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_no_program_tells_the_clients_apart(bench: Bench, subject: str) -> None:
    """After each step of any program both clients have given the same answer and hold the same keys."""
    strategy, count = SUBJECTS[subject]
    for program in draw(strategy, count, first=hash_of(subject)):
        found = await find(bench, program)
        assert found is None, str(await shorten(bench, found))
    print(f"{count} programs, {bench.steps} steps")


def hash_of(subject: str) -> int:
    """A number that differs from subject to subject, and not from run to run."""
    return sum(subject.encode())


def test_programs_are_made_of_all_moves() -> None:
    """A move that is compared is part of random programs, too, or is there for written ones only."""
    drawn = {move for program in draw(programs(EVERYTHING, 60), 900, first=1) for move, _ in program}

    assert MOVES.keys() - drawn == WRITTEN_ONLY
    assert drawn - MOVES.keys() == {"time_passes"}
