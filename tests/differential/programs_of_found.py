"""Programs that a search found, and that told the clients apart once: each shows what was mended since."""

from __future__ import annotations

from typing import Any

from .bench import ITS, Pick, Step
from .steps import add, complete, fail, remove, take

__all__ = ["PROGRAMS"]

Json = Any


def every(ms: int, id: str = "s") -> Step:
    return "upsert_scheduler", {"id": id, "repeat": {"every": ms}, "template": {}}


RUN: Json = Pick(("active", "failed", "completed"))

PROGRAMS: dict[str, list[Step]] = {
    # The id stayed in the set of its state, since it was cut out of the key at its last colon.
    "a scheduler's run is removed when it has failed": [every(1000), take(), fail(RUN, ITS), remove(RUN)],
    "a scheduler's run is removed when it has completed": [
        every(1000),
        take(),
        complete(RUN, ITS),
        remove(RUN),
    ],
    "a job whose id has colons is removed": [add(jobId="a:b:c"), remove("a:b:c"), add(jobId="a:b:c")],
}
