"""An outbox entry: one thing that a change owes to somebody.

    pending ──relay──▶ published ──job──▶ done
       │  ▲                │
       │  └─ lost by Redis ┘        held: refused by the queue three times
       └────── deadline ──────────▶ dead

MongoDB knows what is owed. An entry is written in the transaction of the change that owes it, under a natural key, so
the same change cannot owe twice. The job that does it has an id made from the entry's, so publishing again is
harmless, and it marks the entry done in the transaction of its effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from .. import clock
from ..ids import new_id
from .topics import TOPICS, TopicName

__all__ = ["Entry", "EntryState", "Owed", "job_id_of"]

EntryState = Literal["pending", "published", "done", "held", "dead"]


def job_id_of(entry_id: str) -> str:
    """`obx_01J…` is done by the job `ob.01J…`."""
    return "ob." + entry_id.removeprefix("obx_")


@dataclass(frozen=True, slots=True)
class Owed:
    """What a change owes.

    Attributes:
        key: Natural key: topic, entity, and the sequence number of the change, as in `application.check/app_01J…/1`.
        data: The job's data: ids and sequence numbers only. Redis is clear text, and stale by the time it is read.
        deadline: After this moment it is of use to nobody and is not done.
    """

    topic: TopicName
    key: str
    data: Mapping[str, str | int]
    deadline: datetime
    id: str = field(default_factory=lambda: new_id("obx"))

    def document(self) -> dict[str, Any]:
        """The document as it is first stored."""
        moment = clock.now()
        return {
            "_id": self.id,
            "key": self.key,
            "topic": self.topic,
            "job_id": job_id_of(self.id),
            "data": dict(self.data),
            "priority": TOPICS[self.topic].rank,
            "state": "pending",
            "created_at": moment,
            "next_at": moment,
            "deadline_at": self.deadline,
            "publishes": 0,
            "redrives": 0,
            "refusals": 0,
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """An outbox entry as it is read back."""

    id: str
    key: str
    topic: TopicName
    job_id: str
    data: Mapping[str, str | int]
    state: EntryState
    created_at: datetime
    deadline_at: datetime
    publishes: int
    redrives: int
    refusals: int
    result: str | None
    last_error: str | None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Entry":
        return cls(
            id=document["_id"],
            key=document["key"],
            topic=document["topic"],
            job_id=document["job_id"],
            data=document["data"],
            state=document["state"],
            created_at=document["created_at"],
            deadline_at=document["deadline_at"],
            publishes=document["publishes"],
            redrives=document["redrives"],
            refusals=document["refusals"],
            result=document.get("result"),
            last_error=document.get("last_error"),
        )

    @property
    def visibility(self) -> timedelta:
        """How long its job may stay silent before the reconciler asks after it."""
        return TOPICS[self.topic].visibility
