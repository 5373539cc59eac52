"""The states of a job, by BullMQ's names, and where each one is kept."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["KEY_OF_STATE", "LIST_STATES", "STATES", "FinishedState", "State"]

State = Literal[
    "waiting",
    "prioritized",
    "delayed",
    "active",
    "waiting-children",
    "completed",
    "failed",
    "unknown",
]
FinishedState = Literal["completed", "failed"]

STATES: Final[tuple[State, ...]] = (
    "active",
    "completed",
    "delayed",
    "failed",
    "prioritized",
    "waiting",
    "waiting-children",
)
"""Every state that a job can be found in; `unknown` is the answer for one found nowhere."""

KEY_OF_STATE: Final[dict[State, str]] = {**{state: state for state in STATES}, "waiting": "wait"}
"""The suffix of the key that holds a state's ids."""

LIST_STATES: Final[frozenset[State]] = frozenset({"waiting", "active"})
"""States kept in a list, consumed from its right end; the others are sorted sets."""
