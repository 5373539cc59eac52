"""An application, the verdict on it, and the calendar of a pharmacist.

submitted ──confirm──▶ confirmed
    └── someone else was confirmed ──▶ superseded
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from .. import clock

__all__ = [
    "Application",
    "ApplicationState",
    "Booking",
    "Calendar",
    "Fit",
    "FitState",
    "Item",
    "ItemCode",
    "Severity",
]

ApplicationState = Literal["submitted", "confirmed", "superseded"]
FitState = Literal["checking", "fits", "warnings", "conflicts"]
Severity = Literal["block", "warn"]
ItemCode = Literal[
    "licence_missing",
    "licence_unverified",
    "licence_expires_before",
    "overlap",
    "rest_too_short",
    "also_applied",
]


@dataclass(frozen=True, slots=True)
class Item:
    """One finding of the rules.

    Attributes:
        params: What the sentence about it needs; texts and numbers.
    """

    code: ItemCode
    severity: Severity
    params: Mapping[str, str | int] = field(default_factory=dict[str, str | int])

    def document(self) -> dict[str, Any]:
        return {"code": self.code, "severity": self.severity, "params": dict(self.params)}


@dataclass(frozen=True, slots=True)
class Fit:
    """What the check found; `checking` until it has run.

    Attributes:
        calendar_rev: Revision of the pharmacist's calendar that was looked at.
    """

    state: FitState
    items: tuple[Item, ...]
    calendar_rev: int
    checked_at: datetime | None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Fit":
        return cls(
            state=document["state"],
            items=tuple(Item(**item) for item in document["items"]),
            calendar_rev=document["calendar_rev"],
            checked_at=document["checked_at"],
        )


@dataclass(frozen=True, slots=True)
class Application:
    """A pharmacist's wish to work a shift."""

    id: str
    shift_id: str
    pharmacy_id: str
    pharmacist_id: str
    shift_start: datetime
    shift_end: datetime
    state: ApplicationState
    message: str
    fit: Fit
    created_at: datetime
    decided_at: datetime | None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Application":
        return cls(
            id=document["_id"],
            shift_id=document["shift_id"],
            pharmacy_id=document["pharmacy_id"],
            pharmacist_id=document["pharmacist_id"],
            shift_start=document["shift_start"],
            shift_end=document["shift_end"],
            state=document["state"],
            message=document["message"],
            fit=Fit.from_document(document["fit"]),
            created_at=document["created_at"],
            decided_at=document["decided_at"],
        )


@dataclass(frozen=True, slots=True)
class Booking:
    """A confirmed shift in a pharmacist's calendar."""

    shift_id: str
    pharmacy_id: str
    pharmacy_name: str
    tz: str
    start: datetime
    end: datetime
    paid_minutes: int

    @property
    def when(self) -> str:
        """`Sat 14 Mar, 09:00–17:00 EDT`, in the pharmacy's zone."""
        return clock.when_text(self.start, self.end, self.tz)

    def overlaps(self, start: datetime, end: datetime) -> bool:
        """Shifts that touch do not overlap."""
        return self.start < end and self.end > start


@dataclass(frozen=True, slots=True)
class Calendar:
    """All bookings of a pharmacist: one document, so that two confirms cannot miss each other.

    A query for overlapping shifts, even in a transaction, would not see what another transaction is about to book.
    """

    pharmacist_id: str
    rev: int
    bookings: tuple[Booking, ...]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Calendar":
        return cls(
            pharmacist_id=document["_id"],
            rev=document["rev"],
            bookings=tuple(Booking(**entry) for entry in document["entries"]),
        )
