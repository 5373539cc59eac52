"""A delivery: one message to one person.

    queued ──claim──▶ sending ──▶ sent
       ▲                 │   └──▶ bounced      the address does not exist
       └──── retry ◀─────┘   └──▶ skipped      no longer true when it was its turn

`sending` is a lease: the worker that holds it is the only one to speak to the mail server about this message, until
the lease runs out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

__all__ = ["Delivery", "DeliveryState", "Template"]

DeliveryState = Literal["queued", "sending", "retry", "sent", "bounced", "skipped"]
Template = Literal["application-received", "booking-confirmed", "not-chosen", "daily-report"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Attributes:
    id: Natural key: what it is about, and whom it is for.
    about: Ids from which the message is rendered when it is sent, so that it says what is true then.
    token: A ULID, the left side of the Message-ID: a repeat is the same message.
    """

    id: str
    template: Template
    about: Mapping[str, str]
    user_id: str
    token: str
    state: DeliveryState
    attempts: int
    lease_until: datetime | None
    error: str | None
    sent_at: datetime | None
    created_at: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Delivery":
        return cls(
            id=document["_id"],
            template=document["template"],
            about=document["about"],
            user_id=document["user_id"],
            token=document["token"],
            state=document["state"],
            attempts=document["attempts"],
            lease_until=document["lease_until"],
            error=document["error"],
            sent_at=document["sent_at"],
            created_at=document["created_at"],
        )
