"""What enters: the form that posts a shift, and the filter of a search."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict

from .. import clock
from ..errors import Invalid

__all__ = ["Card", "NewShift", "ShiftFilter", "clean_text"]

SHORTEST, LONGEST = timedelta(hours=1), timedelta(hours=16)
FURTHEST = timedelta(days=400)
LOWEST_CENTS, HIGHEST_CENTS = 20_00, 250_00
NOTES_LENGTH = 2_000


def clean_text(text: str, length: int) -> str:
    """Free text as it is stored: NFC, without control characters except line ends, cut to `length`."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    kept = "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    return kept.strip()[:length]


@dataclass(frozen=True, slots=True)
class NewShift:
    """A shift that a manager wants to post, checked."""

    day: date
    start: datetime
    end: datetime
    start_at: time
    end_at: time
    break_minutes: int
    rate_cents: int
    notes: str

    @property
    def paid_minutes(self) -> int:
        return int((self.end - self.start).total_seconds()) // 60 - self.break_minutes

    @classmethod
    def from_form(cls, form: Mapping[str, str], tz: str) -> "NewShift":
        """Read the form. An end that is not after the start is on the next day.

        Raises:
            Invalid: With one sentence for each field that is wrong.
        """
        errors: dict[str, str] = {}
        day = _date(form.get("date", ""), "date", errors)
        start_at = _time(form.get("start", ""), "start", errors)
        end_at = _time(form.get("end", ""), "end", errors)
        break_minutes = _number(
            form.get("break_minutes", "0") or "0", "break_minutes", errors, 0, 240, "minutes"
        )
        rate_cents = _money(form.get("rate", ""), "rate", errors)

        start = end = None
        if day and start_at is not None and end_at is not None:
            end_day = day if end_at > start_at else day + timedelta(days=1)
            start = _instant(day, start_at, tz, "start", errors)
            end = _instant(end_day, end_at, tz, "end", errors)
        if start and end:
            length = end - start
            if start <= clock.now():
                errors.setdefault("date", "The shift begins in the past.")
            elif start - clock.now() > FURTHEST:
                errors.setdefault("date", "The shift is more than 400 days away.")
            if not SHORTEST <= length <= LONGEST:
                errors.setdefault("end", "A shift lasts between 1 and 16 hours.")
            elif break_minutes is not None and timedelta(minutes=break_minutes) * 2 > length:
                errors.setdefault("break_minutes", "The break takes more than half of the shift.")
        if errors or not (day and start and end) or start_at is None or end_at is None:
            raise Invalid(_in_form_order(errors))
        if break_minutes is None or rate_cents is None:
            raise Invalid(_in_form_order(errors))
        return cls(
            day=day,
            start=start,
            end=end,
            start_at=start_at,
            end_at=end_at,
            break_minutes=break_minutes,
            rate_cents=rate_cents,
            notes=clean_text(form.get("notes", ""), NOTES_LENGTH),
        )


@dataclass(frozen=True, slots=True)
class ShiftFilter:
    """What a pharmacist looks for. Rates are whole dollars, so that people share cached pages.

    Attributes:
        region: None: all regions in which they hold a licence.
        first, last: Local days at the pharmacy, both included.
    """

    region: str | None
    first: date
    last: date
    min_rate: int

    @classmethod
    def from_query(cls, query: Mapping[str, str], today: date) -> "ShiftFilter":
        """Read a query string; what is missing or makes no sense falls back to the next two weeks."""
        ignored: dict[str, str] = {}
        first = _date(query.get("from", ""), "from", ignored) or today
        first = max(first, today)
        last = _date(query.get("to", ""), "to", ignored) or first + timedelta(days=13)
        last = min(max(last, first), first + timedelta(days=92))
        rate = query.get("rate", "")
        min_rate = min(int(rate), 1_000) if re.fullmatch(r"\d{1,4}", rate) else 0
        region = query.get("region", "")
        return cls(
            region=region if re.fullmatch(r"[A-Z]{2}-[A-Z]{1,3}", region) else None,
            first=first,
            last=last,
            min_rate=min_rate,
        )

    @property
    def fingerprint(self) -> str:
        """The same for everyone who looks for the same, and for nobody else. The region has a key of its own."""
        canonical = f"{self.first}|{self.last}|{self.min_rate}"
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Card(BaseModel):
    """An open shift as the search shows it. Nothing about the viewer: one cached page serves everyone."""

    model_config = ConfigDict(frozen=True)

    id: str
    version: int
    pharmacy_name: str
    city: str
    software: str
    region: str
    tz: str
    local_date: date
    start: datetime
    end: datetime
    paid_minutes: int
    break_minutes: int
    rate_cents: int
    live: int

    @property
    def span(self) -> str:
        return clock.span_text(self.start, self.end, self.tz)

    @property
    def pay_cents(self) -> int:
        return self.rate_cents * self.paid_minutes // 60


FORM_ORDER = ("date", "start", "end", "break_minutes", "rate", "notes")


def _in_form_order(errors: Mapping[str, str]) -> dict[str, str]:
    return {name: errors[name] for name in FORM_ORDER if name in errors}


def _date(text: str, field: str, errors: dict[str, str]) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        errors[field] = "Enter a date, such as 2027-03-14." if text else "Choose a date."
        return None
    if not 2000 <= day.year <= 2200:
        errors[field] = "Enter a date within this century."
        return None
    return day


def _time(text: str, field: str, errors: dict[str, str]) -> time | None:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d(:00)?", text):
        errors[field] = "Enter a time, such as 09:00."
        return None
    return time.fromisoformat(text)


def _instant(day: date, at: time, tz: str, field: str, errors: dict[str, str]) -> datetime | None:
    try:
        return clock.instant(day, at, tz)
    except clock.LocalTimeError as error:
        errors[field] = str(error)
        return None


def _number(text: str, field: str, errors: dict[str, str], low: int, high: int, unit: str) -> int | None:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not low <= int(text) <= high:
        errors[field] = f"Enter a number of {unit} between {low} and {high}."
        return None
    return int(text)


def _money(text: str, field: str, errors: dict[str, str]) -> int | None:
    match = re.fullmatch(r"\$?([0-9]{1,5})(?:[.,]([0-9]{2}))?", text.strip())
    cents = int(match[1]) * 100 + int(match[2] or 0) if match else -1
    if not LOWEST_CENTS <= cents <= HIGHEST_CENTS:
        errors[field] = (
            f"Enter an hourly rate between ${LOWEST_CENTS // 100} and ${HIGHEST_CENTS // 100}, such as 62.50."
        )
        return None
    return cents
