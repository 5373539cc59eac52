"""Programs that somebody wrote: every transition, and every case of it that the format tells apart."""

from __future__ import annotations

import pytest

from . import programs_of_found, programs_of_jobs, programs_of_queues, programs_of_schedulers
from .bench import Bench

PROGRAMS = {
    f"{subject}: {case}": program
    for subject, programs in {
        **programs_of_jobs.PROGRAMS,
        **programs_of_queues.PROGRAMS,
        "scheduling": programs_of_schedulers.PROGRAMS,
        "found": programs_of_found.PROGRAMS,
    }.items()
    for case, program in programs.items()
}


@pytest.mark.parametrize("case", PROGRAMS)
async def test_toril_leaves_what_the_reference_leaves(bench: Bench, case: str) -> None:
    """After each step of the program both clients have given the same answer and hold the same keys."""
    await bench.run(PROGRAMS[case])
