"""What a job scheduler can be: each function refuses what it cannot, and says which option is meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ._repeating import LATEST_DATE_MS
from ._shown import shown
from .backoff import Duration, milliseconds
from .codec import MAX_SAFE_INTEGER, loads
from .errors import ConfigurationError, SerializationError
from .keys import check_name
from .limits import check_job_name
from .options import prepare

if TYPE_CHECKING:
    from .job_scheduler import JobScheduler

__all__ = [
    "LEGACY",
    "LEGACY_ID",
    "check",
    "check_id",
    "checked_name",
    "date_ms",
    "interval",
    "template_of",
    "whole",
]

# Keys of repeatable jobs of BullMQ 5, `name:id:end date:zone:pattern or interval`, which 6 no longer plans.
LEGACY_ID: Final = re.compile(r"[^:]*:[^:]*:[0-9]*:[^:]*:(?:.* .*|[0-9]+)")
LEGACY: Final = (
    "{0!r} is the key of a repeatable job of BullMQ 5, which is planned no longer; "
    "remove_job_scheduler({0!r}) takes it away, upsert_job_scheduler with an id of your own replaces it"
)
_MISSED: Final = ("skip", "once", "all")
# What a run gets from its scheduler, or cannot have.
_NOT_FOR_TEMPLATES: Final = frozenset(
    {
        "job_id",
        "delay",
        "timestamp",
        "deduplication",
        "durability",
        "parent",
        "fail_parent_on_failure",
        "continue_parent_on_failure",
        "ignore_dependency_on_failure",
        "remove_dependency_on_failure",
    }
)


def template_of(options: Mapping[str, Any] | None, defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options of a scheduler's jobs in the stored form.

    Raises:
        ConfigurationError, SerializationError: One cannot be, or is for single jobs.
    """
    options = options or {}
    if not isinstance(options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"{where}: options must be a mapping of names to values, got {shown(options)}"
        )
    for option in options:
        if option in _NOT_FOR_TEMPLATES:
            raise ConfigurationError(
                f"{where}: its jobs cannot have the option {option!r}, which is one job's"
            )
    kept = {name: value for name, value in defaults.items() if name not in _NOT_FOR_TEMPLATES}
    try:
        stored = prepare(options, kept).stored
    except (ConfigurationError, SerializationError) as error:
        raise type(error)(f"{where}: {error}") from None
    template: dict[str, Any] = loads(stored)
    if "attempts" not in options and "attempts" not in kept:
        del template["attempts"]
    return template


def check(scheduler: JobScheduler, immediately: bool, now_ms: int, where: str, *, is_cron: bool) -> None:
    """Refuse a definition that contradicts itself."""
    if (scheduler.every_ms is None) == (scheduler.pattern is None):
        raise ConfigurationError(f"{where}: it needs either every or a pattern")
    if scheduler.pattern is not None:
        if not isinstance(scheduler.pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{where}: pattern must be text, got {shown(scheduler.pattern)}")
        words = scheduler.pattern.split()
        if is_cron and len(words) not in {5, 6} and not scheduler.pattern.startswith("@"):
            raise ConfigurationError(
                f"{where}: cron pattern {shown(scheduler.pattern)} must have five fields, or six with the seconds first"
            )
        if scheduler.offset_ms is not None:
            raise ConfigurationError(f"{where}: offset belongs to every; a pattern says itself when it fires")
    elif scheduler.tz is not None:
        raise ConfigurationError(f"{where}: tz belongs to a pattern; an interval is the same in all zones")
    if scheduler.every_ms is not None:
        if scheduler.offset_ms is not None and scheduler.offset_ms >= scheduler.every_ms:
            raise ConfigurationError(f"{where}: offset must be shorter than every")
        if immediately and scheduler.offset_ms:
            raise ConfigurationError(f"{where}: immediately and offset exclude each other")
    if not isinstance(immediately, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{where}: immediately must be True or False, got {shown(immediately)}")
    if immediately and scheduler.start_ms is not None:
        raise ConfigurationError(f"{where}: immediately and start_date exclude each other")
    if scheduler.end_ms is not None and scheduler.end_ms < now_ms:
        raise ConfigurationError(f"{where}: end_date is in the past")
    if (
        scheduler.end_ms is not None
        and scheduler.start_ms is not None
        and scheduler.end_ms < scheduler.start_ms
    ):
        raise ConfigurationError(f"{where}: end_date is before start_date")
    if scheduler.missed not in _MISSED:
        raise ConfigurationError(
            f"{where}: missed must be one of {', '.join(_MISSED)}, got {shown(scheduler.missed)}"
        )


def check_id(scheduler_id: str, where: str) -> None:
    """Refuse an id that no key can hold, or that reads as something else."""
    check_name(f"{where}: its id", scheduler_id)
    if LEGACY_ID.fullmatch(scheduler_id):
        raise ConfigurationError(f"{where}: {LEGACY.format(scheduler_id)}")
    if re.search(r":[0-9]+$", scheduler_id):
        # `repeat:a:5` would be both the scheduler `a:5` and a run of the scheduler `a`.
        raise ConfigurationError(
            f"{where}: its id looks like that of a run; let it not end in ':' and digits"
        )


def checked_name(name: str, where: str) -> str:
    """Return the name of a scheduler's jobs."""
    check_job_name(name, where)
    return name


def interval(every: Duration, where: str) -> int:
    """Return milliseconds."""
    every_ms = milliseconds(every, f"{where}: every")
    if every_ms < 1:
        raise ConfigurationError(f"{where}: every must be at least a millisecond")
    return every_ms


def whole(value: int, where: str) -> int:
    """Return a limit of runs."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SAFE_INTEGER:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{where}: limit must be a whole number, at least 1, got {shown(value)}")
    return value


def date_ms(date: datetime | int, what: str) -> int:
    """Return epoch milliseconds."""
    if isinstance(date, datetime):
        try:
            date = round(date.timestamp() * 1000)
        except (ValueError, OverflowError):
            # At either end of the calendar, for want of a year beyond it.
            date = 0
    if isinstance(date, bool) or not isinstance(date, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"{what} must be a datetime or epoch milliseconds, got {type(date).__name__}"
        )
    if not 10**12 <= date <= LATEST_DATE_MS:
        raise ConfigurationError(f"{what} must lie between 2001 and 2039; a number is epoch milliseconds")
    return date
