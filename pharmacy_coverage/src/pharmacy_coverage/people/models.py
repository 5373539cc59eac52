"""Users, pharmacists' licences, and the actor that a request acts for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

__all__ = ["Actor", "Licence", "LicenceState", "Pharmacist", "Role"]

Role = Literal["pharmacist", "manager", "operator"]
LicenceState = Literal["submitted", "verified", "expired"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Whom a request acts for.

    Attributes:
        pharmacist_id: Set for pharmacists.
        pharmacy_id: Set for managers.
    """

    user_id: str
    name: str
    email: str
    role: Role
    pharmacist_id: str | None
    pharmacy_id: str | None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Actor":
        return cls(
            user_id=document["_id"],
            name=document["name"],
            email=document["email"],
            role=document["role"],
            pharmacist_id=document.get("pharmacist_id"),
            pharmacy_id=document.get("pharmacy_id"),
        )


@dataclass(frozen=True, slots=True)
class Licence:
    """Permission to practise in one region, until the end of a local day."""

    region: str
    body: str
    number: str
    state: LicenceState
    expires_on: date

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Licence":
        return cls(
            region=document["region"],
            body=document["body"],
            number=document["number"],
            state=document["state"],
            expires_on=date.fromisoformat(document["expires_on"]),
        )


@dataclass(frozen=True, slots=True)
class Pharmacist:
    """What a pharmacy may know of a pharmacist, and their licences."""

    id: str
    user_id: str
    name: str
    email: str
    city: str
    software: tuple[str, ...]
    since: int
    licences: tuple[Licence, ...]

    @property
    def regions(self) -> list[str]:
        """Where they hold a verified licence, whether or not it has run out."""
        return sorted({licence.region for licence in self.licences if licence.state == "verified"})

    def licence_for(self, region: str) -> Licence | None:
        """The licence for a region, the longest valid first."""
        fitting = [licence for licence in self.licences if licence.region == region]
        return max(
            fitting, key=lambda licence: (licence.state == "verified", licence.expires_on), default=None
        )


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A signed-in browser."""

    user_id: str
    expires_at: datetime
