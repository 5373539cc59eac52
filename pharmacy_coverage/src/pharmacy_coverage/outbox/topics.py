"""What can be owed: topic by topic, the queue and job that do it, and how patiently.

The relay publishes by name from this table and imports no processor; `tests/test_outbox.py` compares the two.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from toril import Exponential

__all__ = ["QUEUE_NAMES", "TOPICS", "QueueName", "Topic", "TopicName"]

QueueName = Literal["notify", "mail", "checks", "reports"]
QUEUE_NAMES: tuple[QueueName, ...] = ("notify", "mail", "checks", "reports")

TopicName = Literal[
    "application.submitted",
    "application.check",
    "calendar.changed",
    "shift.filled",
    "mail.deliver",
    "report.due",
    "search.changed",
]

PATIENT = Exponential(timedelta(seconds=15), jitter=0.5)
BRISK = Exponential(timedelta(seconds=2), jitter=0.5)


@dataclass(frozen=True, slots=True)
class Topic:
    """How a topic is done.

    Attributes:
        queue: None: the relay does it itself, at once, and the entry is done when published.
        visibility: A published job that is silent for longer is asked after.
        rank: Among entries that are due, the lower goes first.
    """

    queue: QueueName | None
    job: str
    visibility: timedelta = timedelta(seconds=30)
    attempts: int = 8
    backoff: Exponential = PATIENT
    rank: int = 5


TOPICS: dict[TopicName, Topic] = {
    "search.changed": Topic(None, "", rank=1),
    "application.check": Topic("checks", "check-fit", attempts=5, backoff=BRISK, rank=2),
    "calendar.changed": Topic("checks", "calendar-changed", attempts=5, backoff=BRISK, rank=2),
    "application.submitted": Topic("notify", "application-submitted", backoff=BRISK, rank=3),
    "shift.filled": Topic("notify", "shift-filled", backoff=BRISK, rank=3),
    "mail.deliver": Topic("mail", "deliver", visibility=timedelta(minutes=2), rank=4),
    "report.due": Topic(
        "reports",
        "daily-report",
        visibility=timedelta(minutes=15),
        attempts=5,
        backoff=Exponential(timedelta(minutes=1), jitter=0.5),
        rank=9,
    ),
}
