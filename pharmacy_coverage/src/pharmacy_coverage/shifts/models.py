"""A shift.

    open ──confirm──▶ filled

The instants rule; the wall-clock times that the manager typed are kept beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from .. import clock

__all__ = ["Assignment", "Shift", "ShiftState"]

ShiftState = Literal["open", "filled"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who works a filled shift, and how they came to it."""

    application_id: str
    pharmacist_id: str
    pharmacist_name: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Shift:
    """A stretch of time at a pharmacy that needs one pharmacist.

    Attributes:
        version: Grows with each change.
        live: Applications that are submitted or confirmed.
        paid_minutes: Between the instants, without the break: 7 h and 9 h on nights in which clocks change.
    """

    id: str
    pharmacy_id: str
    pharmacy_name: str
    city: str
    software: str
    region: str
    tz: str
    local_date: date
    start: datetime
    end: datetime
    break_minutes: int
    paid_minutes: int
    rate_cents: int
    notes: str
    state: ShiftState
    version: int
    live: int
    assignment: Assignment | None
    created_at: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Shift":
        assignment = document["assignment"]
        return cls(
            id=document["_id"],
            pharmacy_id=document["pharmacy_id"],
            pharmacy_name=document["card"]["pharmacy_name"],
            city=document["card"]["city"],
            software=document["card"]["software"],
            region=document["region"],
            tz=document["tz"],
            local_date=date.fromisoformat(document["local"]["date"]),
            start=document["start"],
            end=document["end"],
            break_minutes=document["break_minutes"],
            paid_minutes=document["paid_minutes"],
            rate_cents=document["rate_cents"],
            notes=document["notes"],
            state=document["state"],
            version=document["version"],
            live=document["counts"]["live"],
            assignment=Assignment(**assignment) if assignment else None,
            created_at=document["created_at"],
        )

    @property
    def pay_cents(self) -> int:
        return self.rate_cents * self.paid_minutes // 60

    @property
    def when(self) -> str:
        """`Sat 14 Mar, 09:00–17:00 EDT`, in the pharmacy's zone."""
        return clock.when_text(self.start, self.end, self.tz)

    @property
    def has_begun(self) -> bool:
        return self.start <= clock.now()
