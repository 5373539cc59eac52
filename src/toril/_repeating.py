"""When a job scheduler's pattern fires next: by the cron parser, or by a strategy of the program's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ._cron import Cron, local_zone, zone
from ._shown import shown
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .job_scheduler import JobScheduler

__all__ = ["LATEST_DATE_MS", "RepeatStrategy", "next_fire"]

RepeatStrategy = Callable[[int, Mapping[str, Any], str], "datetime | int | None"]
"""What reads patterns in the program's own way: (epoch ms, repeat options under BullMQ's names, the jobs' name) -> the
first run after that time, as a datetime or epoch ms; None where there is none."""

LATEST_DATE_MS: Final = 2**53 // 4096
"""Due times beyond this have no exact score; it lies in 2039."""
# How many missed runs are gone through in order to find the last of them.
_MOST_MISSED: Final = 10_000


def next_fire(scheduler: JobScheduler, now_ms: int, strategy: RepeatStrategy | None = None) -> int | None:
    """Return when a pattern fires after its planned run, by its policy for missed ones; None for no more.

    Raises:
        ConfigurationError: The pattern or the time zone means nothing here, or the strategy does not lead onwards.
    """
    assert scheduler.pattern is not None
    if strategy is None:
        cron = Cron.parse(scheduler.pattern)
        tz = local_zone() if scheduler.tz is None else zone(scheduler.tz)

        def after(ms: int) -> int | None:
            return cron.next_after(ms, tz)

        def latest(ms: int) -> int | None:
            return cron.latest(ms, now_ms, tz)

    else:
        own = strategy

        def after(ms: int) -> int | None:
            return _asked(own, scheduler, ms)

        def latest(ms: int) -> int | None:
            found: int | None = None
            for _ in range(_MOST_MISSED):
                following = after(ms)
                if following is None or following > now_ms:
                    break
                found = ms = following
            return found

    planned = max(scheduler.next_ms, scheduler.start_ms or 0)
    found: int | None = None
    if scheduler.next_ms and scheduler.missed == "all":
        found = after(planned)
    elif scheduler.next_ms and scheduler.missed == "once":
        found = latest(planned)
    if found is None:
        found = after(max(planned, now_ms))
    if found is None or found > min(scheduler.end_ms or LATEST_DATE_MS, LATEST_DATE_MS):
        return None
    return found


def _asked(strategy: RepeatStrategy, scheduler: JobScheduler, ms: int) -> int | None:
    answer = strategy(ms, scheduler.repeat(), scheduler.name)
    if answer is None:
        return None
    found = round(answer.timestamp() * 1000) if isinstance(answer, datetime) else answer
    if isinstance(found, bool) or not isinstance(found, int) or found <= ms:  # pyright: ignore[reportUnnecessaryIsInstance]
        # A run that is due at once, again and again, would never end.
        raise ConfigurationError(
            f"repeat_strategy must return a time after the one that it is given, as a datetime or in epoch ms; "
            f"for pattern {scheduler.pattern!r} it returned {shown(answer)}"
        )
    return found
