"""How things are said: filters that pages and mail share."""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from . import clock
from .applications.models import Item
from .applications.rules import sentence
from .pharmacies.models import REGIONS

__all__ = ["filters"]


def money(cents: int) -> str:
    """`$1,234.50`; whole dollars without cents."""
    return f"${cents // 100:,}" if cents % 100 == 0 else f"${cents / 100:,.2f}"


def day(value: date) -> str:
    return f"{value:%a %-d %b}"


def long_day(value: date) -> str:
    return f"{value:%A, %-d %B %Y}"


def at(value: datetime, tz: str) -> str:
    """An instant on a wall clock: `24 Nov, 09:12 EST`."""
    return f"{value.astimezone(ZoneInfo(tz)):%-d %b, %H:%M %Z}"


class Span(Protocol):
    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime: ...


def when(span: Span, tz: str) -> str:
    """`Sat 14 Mar, 09:00–17:00 EDT`."""
    return clock.when_text(span.start, span.end, tz)


def ago(value: datetime) -> str:
    seconds = max(0, int((clock.now() - value).total_seconds()))
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 applicant`, `2 applicants`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def to_pharmacist(item: Item) -> str:
    return sentence(item, own=True)


def to_manager(item: Item) -> str:
    return sentence(item, own=False)


def region(code: str) -> str:
    return REGIONS.get(code, code)


filters: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "at": at,
    "day": day,
    "hours": clock.hours_text,
    "long_day": long_day,
    "money": money,
    "plural": plural,
    "region": region,
    "to_manager": to_manager,
    "to_pharmacist": to_pharmacist,
    "when": when,
}
