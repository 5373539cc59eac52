"""The events of a queue, one after another: where they say that each job is, and whether it could get there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["History", "Replay"]

_COMES_FROM: Final[dict[str, frozenset[str]]] = {
    # A parent's release may go unsaid, where its last child was removed from another queue.
    "active": frozenset({"waiting", "waiting-children"}),
    "delayed": frozenset({"added", "active", "delayed", "waiting-children"}),
    "waiting-children": frozenset({"added", "active"}),
    "completed": frozenset({"active"}),
    "failed": frozenset({"active"}),
}
_WAITS_AFTER: Final[dict[str, frozenset[str]]] = {
    "": frozenset({"added"}),
    "active": frozenset({"active"}),
    "delayed": frozenset({"delayed"}),
    # A delayed parent that its child fails is said to come from there, too.
    "waiting-children": frozenset({"waiting-children", "delayed"}),
    "completed": frozenset({"completed"}),
    "failed": frozenset({"failed"}),
}
"""What `prev` says -> the states in which a job may then have been."""


@dataclass(slots=True)
class History:
    """What the events tell of one job.

    Attributes:
        state: The state after the last of them; empty where they do not say.
        is_whole: Whether they begin with the adding of the job.
        starts: How often it was fetched.
        stalls: How often it was taken back.
        returns: How often it went from active to where it runs again, taken back or not.
        was_retried: Whether somebody ran it again after it had ended, which may reset its counters.
        faults: (invariant, what is wrong) of moves that cannot be.
    """

    state: str = ""
    is_whole: bool = False
    starts: int = 0
    stalls: int = 0
    returns: int = 0
    was_retried: bool = False
    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def move(self, state: str, allowed: frozenset[str]) -> None:
        """Take in a move to a state, which is a fault where the job was in none of the allowed ones."""
        if self.state and self.state not in allowed:
            ends_again = {state, self.state} <= {"completed", "failed"}
            self.faults.append(
                ("I4" if ends_again else "I8", f"an event says {state!r}, and the one before {self.state!r}")
            )
        self.returns += self.state == "active" and state in ("waiting", "delayed")
        self.state = state


class Replay:
    """Takes in the events of a queue in order, and keeps a history of each job."""

    def __init__(self, events: Iterable[Mapping[str, str] | None] = ()) -> None:
        self.jobs: dict[str, History] = {}
        for event in events:
            self.feed(event)

    def feed(self, event: Mapping[str, str] | None) -> None:
        """Take in the next event; None where some have been missed."""
        if event is None:
            self.jobs.clear()
            return
        name, job_id = event.get("event", ""), event.get("jobId", "")
        if not job_id:
            return
        if name == "added":
            known = self.jobs.get(job_id)
            self.jobs[job_id] = History("added", is_whole=True, faults=known.faults if known else [])
        elif name == "removed":
            self.jobs.pop(job_id, None)
        elif name == "waiting":
            prev = event.get("prev", "")
            history = self.jobs.setdefault(job_id, History())
            history.move("waiting", _WAITS_AFTER.get(prev, frozenset()))
            history.was_retried = history.was_retried or prev in ("completed", "failed")
        elif name in _COMES_FROM:
            history = self.jobs.setdefault(job_id, History())
            history.move(name, _COMES_FROM[name])
            history.starts += name == "active"
        elif name == "stalled":
            self.jobs.setdefault(job_id, History()).stalls += 1
