"""Mends what `check` has found, one script a fault, which looks again before it writes.

What would need a guess, such as a job that is in two states, is left to people; see `Violation.repairable`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import ServerRefusedError
from ..job_scheduler import mend_job_schedulers
from ..queue import Queue
from .rules import Violation

__all__ = ["plan", "repair"]

_LOCK_MS: Final = "30000"


class _Mend(NamedTuple):
    invariant: str
    text: re.Pattern[str]
    fault: str
    says: str


_MENDS: Final = tuple(
    _Mend(invariant, re.compile(text), fault, says)
    for invariant, text, fault, says in (
        ("I3", r"has .* but no record", "parts", "remove what is left of a job that is gone"),
        (
            "I3",
            r"is in .*, and has no record",
            "missing",
            "take the id out of its state; there is nothing to run",
        ),
        ("I2", r"is in .* \d+ times", "doubled", "leave the id in its place once"),
        ("I9", r"holds '(?P<id>.*)', which wakes nobody", "marker", "remove the marker"),
        (
            "I9",
            r"has a lock that never runs out",
            "endless",
            "let the lock run out, so that the job is taken back",
        ),
        ("I9", r"has a lock, and is in .*", "lock", "remove the lock"),
        ("I9", r"is still taken for stalled", "stalled", "take it off the list of the stalled"),
        ("I11", r"waits for children, and has none .*", "childless", "let the parent go on"),
        ("I11", r"waits for .*, which .*", "child", "no longer wait for this child"),
        ("I12", r"a job scheduler without a pending job", "scheduler", "plan the scheduler's next run"),
        ("I21", r"is owned for ever by .*", "dedup", "free the deduplication id"),
    )
)


def plan(violation: Violation) -> str | None:
    """Return in words what `repair` would do; None where it does nothing."""
    found = _mend(violation)
    return None if found is None else found.says


async def repair(queue: Queue, violation: Violation) -> bool:
    """Mend it; False where it is not so any more, or cannot be mended without a guess.

    Raises:
        TorilError: The server could not be asked.
    """
    mend = _mend(violation)
    if mend is None:
        return False
    await queue.connection.learn_time()
    try:
        return await _run(queue, violation, mend)
    except ServerRefusedError as error:
        if "WRONGTYPE" not in str(error):
            raise
        # Where a key of the queue's own is something else, nothing can be put right around it.
        return False


async def _run(queue: Queue, violation: Violation, mend: _Mend) -> bool:
    item = violation.key.removeprefix(queue.keys.base)
    if mend.fault == "scheduler":
        return item.removeprefix("repeat:") in await mend_job_schedulers(queue)
    found = mend.text.fullmatch(violation.text)
    other = ""
    match mend.fault:
        case "marker":
            item = found["id"] if found else ""
        case "dedup":
            item = item.removeprefix("de:")
        case "child":
            other = violation.about[0]
        case "endless":
            other = _LOCK_MS
        case _:
            pass
    return await queue.scripts.repair(queue.clock.now_ms(), mend.fault, item, other)


def _mend(violation: Violation) -> _Mend | None:
    if not violation.repairable:
        return None
    fitting = (m for m in _MENDS if m.invariant == violation.invariant and m.text.fullmatch(violation.text))
    return next(fitting, None)
