"""The rules: may this pharmacist work this shift, and how well does it fit? Pure functions, no I/O.

They help and they guard: the asynchronous check shows their findings on the application, and confirm runs them again
on what it reads in its transaction.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Protocol

from .. import clock
from ..people.models import Licence
from ..pharmacies.models import REGIONS
from ..shifts.models import Shift
from .models import Booking, Calendar, FitState, Item

__all__ = ["blocks", "evaluate", "fit_state", "licence_items", "sentence"]

# Ontario's rule for employees, used everywhere: eight hours free between two shifts, unless both together are short.
MIN_REST = timedelta(hours=8)
SHORT_TOGETHER_MINUTES = 13 * 60


class HasLicences(Protocol):
    def licence_for(self, region: str) -> Licence | None: ...


def evaluate(
    shift: Shift, person: HasLicences, calendar: Calendar, also_applied: Iterable[Shift] = ()
) -> list[Item]:
    """Everything there is to say, the gravest first.

    Args:
        calendar: The person's bookings. One for this very shift is left out of account.
        also_applied: Other shifts for which the person has a live application.
    """
    items = licence_items(shift, person)
    items += calendar_items(shift, calendar.bookings)
    items += [
        Item("also_applied", "warn", _where(other.pharmacy_name, other.when, other.id))
        for other in also_applied
        if other.id != shift.id and other.start < shift.end and other.end > shift.start
    ]
    return sorted(items, key=lambda item: item.severity != "block")


def licence_items(shift: Shift, person: HasLicences) -> list[Item]:
    """Whether the person may practise where and when the shift is; to the end of its last local day."""
    licence = person.licence_for(shift.region)
    region = REGIONS.get(shift.region, shift.region)
    if licence is None:
        return [Item("licence_missing", "block", {"region": region})]
    if licence.state == "submitted":
        return [Item("licence_unverified", "block", {"region": region})]
    if licence.state == "expired" or licence.expires_on < clock.local_date(shift.end, shift.tz):
        return [
            Item(
                "licence_expires_before",
                "block",
                {"region": region, "expires_on": f"{licence.expires_on:%-d %b %Y}"},
            )
        ]
    return []


def calendar_items(shift: Shift, bookings: Sequence[Booking]) -> list[Item]:
    """Bookings at the same time, and bookings too close by."""
    items: list[Item] = []
    for booking in bookings:
        if booking.shift_id == shift.id:
            continue
        params = _where(
            booking.pharmacy_name, clock.when_text(booking.start, booking.end, booking.tz), booking.shift_id
        )
        if booking.overlaps(shift.start, shift.end):
            items.append(Item("overlap", "block", params))
            continue
        rest = booking.start - shift.end if booking.start >= shift.end else shift.start - booking.end
        is_short = booking.paid_minutes + shift.paid_minutes <= SHORT_TOGETHER_MINUTES
        if rest < MIN_REST and not is_short:
            minutes = int(rest.total_seconds()) // 60
            items.append(Item("rest_too_short", "block", {**params, "rest": clock.hours_text(minutes)}))
    return items


def blocks(items: Iterable[Item]) -> list[Item]:
    return [item for item in items if item.severity == "block"]


def fit_state(items: Sequence[Item]) -> FitState:
    if blocks(items):
        return "conflicts"
    return "warnings" if items else "fits"


def sentence(item: Item, *, own: bool) -> str:
    """The finding in words. `own`: to the pharmacist; a manager does not learn where else somebody works."""
    p = item.params
    match item.code:
        case "licence_missing":
            return f"No licence for {p['region']}"
        case "licence_unverified":
            return f"The licence for {p['region']} is not verified yet, which takes about one working day"
        case "licence_expires_before":
            return f"The licence for {p['region']} ends on {p['expires_on']}, before this shift does"
        case "overlap":
            return f"Conflicts with {p['pharmacy']}, {p['when']}" if own else "Conflicts with another booking"
        case "rest_too_short":
            where = f"{p['pharmacy']}, {p['when']}" if own else "another booking"
            return (
                f"Only {p['rest']} free between this shift and {where}; {clock.hours_text(8 * 60)} are needed"
            )
        case "also_applied":
            if own:
                return f"You have also applied for {p['pharmacy']}, {p['when']}"
            return "Has also applied elsewhere for that time"


def _where(pharmacy: str, when: str, shift_id: str) -> dict[str, str | int]:
    return {"pharmacy": pharmacy, "when": when, "shift_id": shift_id}
