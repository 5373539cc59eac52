"""A daily report and its figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

__all__ = ["Figures", "Hole", "Report"]

OUTLOOK_DAYS = 14


@dataclass(frozen=True, slots=True)
class Hole:
    """An open shift in the outlook."""

    shift_id: str
    start: datetime
    end: datetime
    applicants: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a report counts. The day is the local day of the pharmacy; money is in cents.

    Attributes:
        shifts: Shifts that began on the day.
        filled, unfilled: Of those, with and without a pharmacist.
        paid_minutes, cost_cents: Of the filled ones.
        posted: Shifts that were posted on the day, for whatever date.
        applications, confirmed: Applications that came in, and confirms that were made, on the day.
        ahead_filled, holes: Of the fourteen days after it: how many are covered, and which are not.
    """

    shifts: int
    filled: int
    unfilled: int
    paid_minutes: int
    cost_cents: int
    posted: int
    applications: int
    confirmed: int
    ahead_filled: int
    holes: tuple[Hole, ...]

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "holes": [asdict(hole) for hole in self.holes]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Figures":
        values: dict[str, Any] = {**document, "holes": tuple(Hole(**hole) for hole in document["holes"])}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Report:
    """Attributes:
    revision: Grows when the same day is reported again.
    """

    pharmacy_id: str
    pharmacy_name: str
    tz: str
    day: date
    figures: Figures
    revision: int
    generated_at: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Report":
        return cls(
            pharmacy_id=document["pharmacy_id"],
            pharmacy_name=document["pharmacy_name"],
            tz=document["tz"],
            day=date.fromisoformat(document["date"]),
            figures=Figures.from_document(document["figures"]),
            revision=document["revision"],
            generated_at=document["generated_at"],
        )
