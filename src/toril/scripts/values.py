"""What the scripts take and answer, where that is more than a number or a text.

A field that is a JSON text says so. How the values are laid out as arguments is left to `Scripts`, but for what
several scripts take alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from ..options import KeepRule
from ..states import FinishedState

__all__ = ["Fetch", "Fetched", "FinishedJob", "NewRecord", "NextRun", "Receipt", "Start"]


# Of all kinds of values the one that is made quickest; without `gc`, since it holds nothing that could hold it.
class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A job to be added, as text.

    Attributes:
        job_id: Empty for a generated one.
        data: JSON.
        options: JSON, with BullMQ's names.
        timestamp: Epoch milliseconds.
        delay_ms: From the timestamp.
        extras: JSON of what few jobs have, see `add_job.lua`; empty for none.
    """

    job_id: str
    name: str
    data: str
    options: str
    timestamp: str
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    extras: str = ""


class Receipt(NamedTuple):
    """What lets a call that adds jobs be repeated.

    Attributes:
        slot: Names the key that keeps the last answer; one call at a time uses it. Empty for none.
        call: Tells this call from earlier ones in the slot.
        is_repeat: It has been sent before, and may have been heard.
    """

    slot: str = ""
    call: int = 0
    is_repeat: bool = False


class FinishedJob(NamedTuple):
    """The end of an active job.

    Attributes:
        value: The return value as JSON, or the failed reason as raw text.
        stacktrace: JSON list of stack traces; empty for a completed job.
    """

    job_id: str
    token: str
    target: FinishedState
    value: str
    stacktrace: str = ""
    attempts: int = 0
    keep: KeepRule = KeepRule()


class NextRun(NamedTuple):
    """A run that a job scheduler plans.

    Attributes:
        next_ms: When its pattern fires; None for an interval, whose time the script computes.
        options: JSON object, without id, delay and time.
    """

    next_ms: int | None
    options: str
    priority: int = 0
    lifo: bool = False

    def args(self) -> tuple[Any, ...]:
        """Return the options as the scripts take them."""
        return (self.options, self.priority, "1" if self.lifo else "")


class Fetch(NamedTuple):
    """How a worker asks for jobs.

    Attributes:
        want: How many at most.
        token: The value of the locks; `0` takes none.
        limit: Rate limit of this worker: (starts, window in ms).
        shares: Take no more than half of what waits; for a fetch alone, without ends.
    """

    want: int
    token: str
    lock_ms: int
    worker: str = ""
    limit: tuple[int, int] | None = None
    shares: bool = False

    def args(self) -> tuple[Any, ...]:
        """Return the arguments in the order in which the scripts take them."""
        most, window = self.limit or ("", "")
        return (self.want, self.token, self.lock_ms, self.worker, most, window)


class Fetched(NamedTuple):
    """The answer to a fetch.

    Attributes:
        jobs: (id, record) each; the record as it was before the start.
        limit_ttl_ms: How long a rate limit still lasts; 0 for none.
        due_ms: When the next delayed job is due, where there was nothing else; else 0.
        is_closed: Paused, or as many jobs active as the queue allows.
    """

    jobs: list[tuple[str, dict[str, str]]]
    limit_ttl_ms: int
    due_ms: float
    is_closed: bool


class Start(NamedTuple):
    """Which start of a job a worker's claim is about. All of it as it stands in the record.

    Attributes:
        number: How many starts there had been then, this one among them.
        at_ms: When it was.
    """

    job_id: str
    token: str
    number: str
    at_ms: str
