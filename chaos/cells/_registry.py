"""How a cell is entered into the matrix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from chaos.stage import Client, Plan, Stage

__all__ = ["ABSENT", "CELLS", "Cell", "cell"]

Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Cell:
    """One row of the matrix, or one setting of a row.

    Attributes:
        key: Its number, and perhaps a letter.
        fault: What is done, for the table.
        play: Does it, while the load runs.
        plan: What it needs.
        clients: Whom it is done to.
        begins: Whether the load runs already when `play` is called; else `play` begins it.
        within: How many seconds a recovery may take.
        alone: Whether nothing may run beside it, since it measures rates or times of the machine.
    """

    key: str
    fault: str
    play: Play
    plan: Plan
    clients: tuple[Client, ...]
    begins: bool
    within: float
    alone: bool

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands in the table."""
        digits = self.key.rstrip("abcdefgh")
        return int(digits), self.key


CELLS: Final[dict[str, Cell]] = {}

PORTED: Final = frozenset({"1", "3", "6", "8", "11", "12", "12b", "14", "16", "22", "24", "34"})
"""Cells that BullMQ's Python port plays too: those that need nothing that it does not have."""

ABSENT: Final[dict[str, str]] = {
    "43": "toril has no dashboard that could be loaded",
}
"""Rows that are not played, and why. They are not green."""


def cell(
    key: str,
    fault: str,
    plan: Plan | None = None,
    *,
    clients: tuple[Client, ...] = ("toril", "bullmq"),
    begins: bool = True,
    within: float = 5.0,
    alone: bool = False,
) -> Callable[[Play], Play]:
    """Enter a function into the matrix."""

    def enter(play: Play) -> Play:
        if key in CELLS:
            raise ValueError(f"cell {key} is there already: {CELLS[key].fault}")
        everyone: tuple[Client, ...] = (*clients, "bullmq-python") if key in PORTED else clients
        CELLS[key] = Cell(key, fault, play, plan or Plan(), everyone, begins, within, alone)
        return play

    return enter
