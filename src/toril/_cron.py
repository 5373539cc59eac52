"""When a cron pattern fires next, in the dialect of Node's parser (cron-parser 5.10) and by its rules for DST.

The calendar is `cronsim`'s. Here is what it leaves open: the dialect, which is put into plain lists of numbers before
`cronsim` sees it, and time zones, for which it is only asked about clock faces. `docs/decisions/cron-parsing.md`
says why, and where the times differ from Node's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from ._shown import shown
from .errors import ConfigurationError

__all__ = ["Cron", "local_zone", "zone"]

_ALIASES: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@minutely": "0 * * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 0 * * 1-5",
    "@weekends": "0 0 0 * * 0,6",
}
_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# What fields that a short pattern leaves out stand for.
_DEFAULTS: Final = ("0", "*", "*", "*", "*", "*")
_LONGEST_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.low
        if not re.fullmatch(r"[0-9]{1,4}", text):
            raise ValueError(f"{shown(text)} is no {self.name}")
        if not self.low <= int(text) <= self.high:
            raise ValueError(f"{self.name} {text} is not between {self.low} and {self.high}")
        return int(text)


_FIELDS: Final = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS)),
    _Field("day of the week", 0, 7, tuple(_DAYS)),
)
_DAY, _MONTH, _WEEKDAY = 3, 4, 5


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron pattern of five fields, or six with the seconds first.

    Attributes:
        pattern: As it was written.
        expression: The same for `cronsim`: every field a list of numbers.
        is_every_hour: Whether it names no hours. Such a pattern runs by elapsed time, through changes of the clock.
    """

    pattern: str
    expression: str
    is_every_hour: bool

    @staticmethod
    def parse(pattern: str) -> Cron:
        """Read a pattern.

        Raises:
            ConfigurationError: Node's parser would refuse it, or it never fires, or holds the random `H`.
        """
        if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"cron pattern must be text, got {type(pattern).__name__}")
        return _parse(pattern)

    def next_after(self, after_ms: int, tz: tzinfo) -> int | None:
        """Return the first time after `after_ms` at which it fires; None where there is none within 50 years.

        A pattern that names hours fires once for each time that it names: a time that a change of the clock skips
        is as much later, and one that comes twice counts the first time. A pattern for every hour fires at each
        matching time that there is, also when it comes twice.
        """
        after = datetime.fromtimestamp(after_ms / 1000, tz).replace(microsecond=0)
        face = _wall(after)
        change = _Change.at(after)
        if change is not None and after.fold == 0 and self.is_every_hour:
            found = self._next_face(face)
            if found is None or found >= change.last:
                again = self._next_face(change.first - _SECOND)
                if again is not None and again < change.last:
                    return _ms(again, change.after)
            return self._resolve(found, tz)
        if change is not None and after.fold == 1:
            # The second time of two. What names hours has had its turn.
            found = self._next_face(face if self.is_every_hour else change.last - _SECOND)
            if found is not None and found < change.last:
                return _ms(found, change.after)
            return self._resolve(found, tz)
        return self._resolve(self._next_face(face), tz)

    def latest(self, after_ms: int, until_ms: int, tz: tzinfo) -> int | None:
        """Return the last time after `after_ms` and not after `until_ms` at which it fires."""
        last: int | None = None
        # It fires at `low`, but for the first round, and not between `high` and the end.
        low, high = after_ms, until_ms
        while low < high:
            middle = low if last is None else (low + high) // 2
            found = self.next_after(middle, tz)
            if found is not None and found <= until_ms:
                low = last = found
            elif last is None:
                return None
            else:
                high = middle
        return last

    def _next_face(self, face: datetime) -> datetime | None:
        """The next matching clock face, as if clocks never changed."""
        return next(CronSim(self.expression, face), None)

    def _resolve(self, face: datetime | None, tz: tzinfo) -> int | None:
        if face is None:
            return None
        change = _Change.at(face.replace(tzinfo=tz))
        if change is None or not change.is_gap:
            return _ms(face, face.replace(tzinfo=tz).utcoffset())
        later = self._next_face(change.last - _SECOND)
        real = None if later is None else _ms(later, later.replace(tzinfo=tz).utcoffset())
        if self.is_every_hour:
            return real
        shifted = _ms(face, change.before)
        return shifted if real is None else min(shifted, real)


@dataclass(frozen=True, slots=True)
class _Change:
    """Clock faces that a change of the clock skips, or shows twice: from `first` until before `last`."""

    first: datetime
    last: datetime
    before: timedelta
    after: timedelta

    @property
    def is_gap(self) -> bool:
        return self.after > self.before

    @staticmethod
    def at(moment: datetime) -> _Change | None:
        """The change that concerns this clock face; None for an ordinary one."""
        before = moment.replace(fold=0).utcoffset() or timedelta()
        after = moment.replace(fold=1).utcoffset() or timedelta()
        if before == after:
            return None
        face = _wall(moment)
        # In UTC the change lies between the two readings of the face.
        low, high = sorted((face - before, face - after))
        tz = moment.tzinfo
        assert tz is not None
        while high - low > _SECOND:
            middle = low + (high - low) // _SECOND // 2 * _SECOND
            if middle.replace(tzinfo=UTC).astimezone(tz).utcoffset() == before:
                low = middle
            else:
                high = middle
        first, last = sorted((high + before, high + after))
        return _Change(first, last, before, after)


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        ConfigurationError: There is none of this name here.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"a time zone must be text, as 'Europe/Stockholm', got {shown(name)}")
    # The system's zone files also hold `localtime` and the like, which are other zones on other machines.
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    if name.lower() == "utc":
        return UTC
    raise ConfigurationError(
        f"no time zone {shown(name)} on this machine; names look like 'Europe/Stockholm', "
        "and where the system has no time zones, `pip install tzdata` brings them"
    )


@lru_cache(maxsize=1)
def local_zone() -> tzinfo:
    """Return this process's own zone: by TZ, else the system's; UTC where neither says."""
    name = os.environ.get("TZ", "").removeprefix(":")
    system = Path("/etc/localtime")
    try:
        if name:
            return ZoneInfo(name)
        target = str(system.resolve(strict=True))
        if "zoneinfo/" in target:
            return ZoneInfo(target.rpartition("zoneinfo/")[2])
        with system.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _wall(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None, fold=0)


def _ms(face: datetime, offset: timedelta | None) -> int:
    in_utc = (face - (offset or timedelta())).replace(tzinfo=UTC)
    return round(in_utc.timestamp() * 1000)


@lru_cache(maxsize=512)
def _parse(pattern: str) -> Cron:
    try:
        # Node's parser knows them by themselves only, without a space around.
        words = _ALIASES.get(pattern, pattern).split()
        if not 1 <= len(words) <= 6:
            raise ValueError(f"it has {len(words)} fields")
        words = [*_DEFAULTS[: 6 - len(words)], *words]
        fields = [_expand(word, field) for word, field in zip(words, _FIELDS, strict=True)]
        _check_days(fields)
        expression = " ".join(fields)
        CronSim(expression, datetime(2000, 1, 1))
    except (ValueError, CronSimError) as error:
        raise ConfigurationError(f"cron pattern {shown(pattern)}: {error}") from None
    return Cron(pattern, expression, fields[2] == "*")


def _expand(word: str, field: _Field) -> str:
    """Return a field as a list of numbers, `*` for all of them, with the `L` and `#` that `cronsim` reads alike."""
    if "H" in word.upper() and not any(name in word.lower() for name in field.names if "h" in name):
        raise ValueError("'H' is another time for each reader; name one")
    numbers: list[int] = []
    others: list[str] = []
    for item in word.split(","):
        if field.high == 31 and item == "L":
            others.append("L")
        elif field.high == 7 and item.endswith("L") and len(item) > 1:
            others.append(f"{field.number(item[:-1]) % 7}L")
        elif field.high == 7 and "#" in item:
            day, _, which = item.partition("#")
            if "," in word or which not in {"1", "2", "3", "4", "5"}:
                raise ValueError(f"{shown(word)} must name one day and one of its five occurrences")
            others.append(f"{field.number(day) % 7}#{which}")
        else:
            numbers += _numbers(item, field)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{field.name} {shown(word)} names something twice")
    if word in {"*", "?"} or (field.name == "hour" and len(numbers) == 24):
        return "*"
    return ",".join([*map(str, sorted(numbers)), *others])


def _numbers(item: str, field: _Field) -> list[int]:
    span, slash, step_text = item.partition("/")
    if not span or (slash and not re.fullmatch(r"[0-9]{1,4}", step_text)):
        raise ValueError(f"{shown(item)} is no {field.name}")
    step = int(step_text) if slash else 1
    if step == 0:
        raise ValueError(f"{shown(item)}: every 0 is never")
    if span in {"*", "?"}:
        low, high = field.low, field.high
    elif "-" in span:
        first, _, last = span.partition("-")
        low, high = field.number(first), field.number(last)
        if low > high:
            raise ValueError(f"{shown(item)} runs backwards; write two ranges")
    else:
        low = field.number(span)
        high = field.high if slash else low
    numbers = range(low, high + 1, step)
    # Sunday has two numbers, and a range may hold both.
    return sorted({number % 7 for number in numbers}) if field.high == 7 else list(numbers)


def _check_days(fields: list[str]) -> None:
    days, months, weekdays = fields[_DAY], fields[_MONTH], fields[_WEEKDAY]
    if "*" in (days, months) or weekdays != "*" or "L" in days:
        return
    first = min(map(int, days.split(",")))
    if all(first > _LONGEST_MONTH[int(month) - 1] for month in months.split(",")):
        raise ValueError(f"no such month has a day {first}, so it never fires")
