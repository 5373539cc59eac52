"""A pharmacy."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from typing import Any

__all__ = ["REGIONS", "Pharmacy"]

REGIONS = {"CA-MB": "Manitoba", "CA-ON": "Ontario"}
"""ISO 3166-2 code to name, of the regions the platform works in."""


@dataclass(frozen=True, slots=True)
class Pharmacy:
    """A branch that needs pharmacists.

    Attributes:
        tz: IANA zone; every time that concerns this pharmacy is shown in it.
        report_at: Wall-clock time at which the report of the day before is due.
    """

    id: str
    name: str
    region: str
    tz: str
    address: str
    city: str
    phone: str
    software: str
    report_at: time

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Pharmacy":
        return cls(
            id=document["_id"],
            name=document["name"],
            region=document["region"],
            tz=document["tz"],
            address=document["address"],
            city=document["city"],
            phone=document["phone"],
            software=document["software"],
            report_at=time.fromisoformat(document["report_at"]),
        )
