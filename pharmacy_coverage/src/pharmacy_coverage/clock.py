"""Time: instants are UTC datetimes of whole milliseconds, wall clocks belong to a pharmacy's zone.

`whenever` turns wall time into instants, because it refuses times that a clock change skips or repeats.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from whenever import PlainDateTime, RepeatedTime, SkippedTime

__all__ = [
    "LocalTimeError",
    "day_bounds",
    "hours_text",
    "instant",
    "local_date",
    "now",
    "span_text",
    "when_text",
]


class LocalTimeError(ValueError):
    """A wall-clock time that does not exist on that day, or exists twice."""


def now() -> datetime:
    """The present, cut to milliseconds, which is what BSON keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def instant(day: date, at: time, tz: str) -> datetime:
    """The UTC instant of a wall-clock time.

    Raises:
        LocalTimeError: The clocks change on that day and the time is skipped, or happens twice.
    """
    plain = PlainDateTime(day.year, day.month, day.day, at.hour, at.minute)
    try:
        return plain.assume_tz(tz, disambiguation="raise").to_stdlib().astimezone(UTC)
    except SkippedTime:
        raise LocalTimeError(
            f"The clocks go forward on {day:%-d %B}: {at:%H:%M} does not exist that day. "
            "Choose an hour earlier or later."
        ) from None
    except RepeatedTime:
        raise LocalTimeError(
            f"The clocks go back on {day:%-d %B}: {at:%H:%M} happens twice that day. "
            "Choose a time outside the repeated hour."
        ) from None


def local_date(moment: datetime, tz: str) -> date:
    """The calendar day of `moment` in that zone."""
    return moment.astimezone(ZoneInfo(tz)).date()


def day_bounds(day: date, tz: str) -> tuple[datetime, datetime]:
    """The instants at which a local day begins and ends: 23, 24 or 25 hours apart."""
    zone = ZoneInfo(tz)
    begin = datetime.combine(day, time(), zone).astimezone(UTC)
    end = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
    return begin, end


def hours_text(minutes: int) -> str:
    """`8 h`, `7 h 30`."""
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d}" if rest else f"{hours} h"


def span_text(start: datetime, end: datetime, tz: str) -> str:
    """`09:00–17:00 EDT` in that zone; with `+1` where it ends on the next day."""
    zone = ZoneInfo(tz)
    first, last = start.astimezone(zone), end.astimezone(zone)
    next_day = " +1" if last.date() > first.date() else ""
    return f"{first:%H:%M}–{last:%H:%M}{next_day} {first:%Z}"


def when_text(start: datetime, end: datetime, tz: str) -> str:
    """`Sat 14 Mar, 09:00–17:00 EDT` in that zone."""
    return f"{start.astimezone(ZoneInfo(tz)):%a %-d %b}, {span_text(start, end, tz)}"
