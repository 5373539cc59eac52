"""What must hold, as ratios within one run, and whether it does. A row without a figure says so, and is not met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.contestants import CONTESTANTS
from benchmarks.measures import ratio
from benchmarks.runner import Results

__all__ = ["TARGETS", "Target", "Verdict", "judge"]

NODE: Final = "bullmq-node"
FLOOR: Final = "floor"
Figure = Callable[[Results, str], float | None]
"""What these results say of a contestant."""


@dataclass(frozen=True)
class Target:
    """One row.

    Attributes:
        workload: What it is about, in words.
        against: What toril is compared with.
        bound: The target.
        is_floor: Whether the figure must be at least the bound; else at most.
        figure: Finds it.
        is_percent: Shown as a percentage, not as a multiple.
    """

    workload: str
    against: str
    bound: float
    is_floor: bool
    figure: Figure
    is_percent: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, and what the layout's writes alone reach."""

    target: Target
    measured: float | None
    floor: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the target holds, to the two digits that are printed."""
        if self.measured is None:
            return False
        found = round(self.measured, 2)
        return found >= self.target.bound if self.target.is_floor else found <= self.target.bound

    @property
    def words(self) -> tuple[str, str, str, str]:
        """Target, measured, verdict and floor, as they are printed."""
        target = f"at {'least' if self.target.is_floor else 'most'} {self._show(self.target.bound)}"
        floor = "–" if self.floor is None else self._show(self.floor)
        if self.measured is None:
            return target, "not measured", "not measured", floor
        return target, self._show(self.measured), "met" if self.is_met else "falls short", floor

    def _show(self, value: float) -> str:
        return f"{value * 100:.0f} %" if self.target.is_percent else f"{value:.2f}×"


def _of(results: Results, contestant: str, workload: str, figure: str = "rate") -> float | None:
    return results.cell(workload, contestant).of(figure)


def _against(other: str, workload: str, figure: str = "rate") -> Figure:
    return lambda results, whose: ratio(
        _of(results, whose, workload, figure), _of(results, other, workload, figure)
    )


def fastest_peer(
    results: Results, workload: str, figure: str = "rate", *, is_async: bool = False
) -> str | None:
    """Return the Python peer with the best figure: the highest rate, the lowest of everything else."""
    figures = {
        name: value
        for name in results.contestants
        if CONTESTANTS[name].is_peer
        and (CONTESTANTS[name].is_async_client or not is_async)
        and (value := _of(results, name, workload, figure)) is not None
    }
    if not figures:
        return None
    return (max if figure == "rate" else min)(figures, key=lambda name: figures[name])


def _against_fastest(workload: str, figure: str = "rate", *, is_async: bool = False) -> Figure:
    def find(results: Results, whose: str) -> float | None:
        peer = fastest_peer(results, workload, figure, is_async=is_async)
        return (peer and _against(peer, workload, figure)(results, whose)) or None

    return find


def _own_tail(results: Results, whose: str) -> float | None:
    return ratio(_of(results, whose, "idle", "p99"), _of(results, whose, "idle", "p50"))


TARGETS: Final = (
    Target("drain, one worker process", "BullMQ for Node", 4, True, _against(NODE, "drain")),
    Target("drain, one worker process", "the fastest Python peer", 6, True, _against_fastest("drain")),
    Target("drain, one worker process", "BullMQ's Python port", 15, True, _against("bullmq-python", "drain")),
    Target("drain, two worker processes", "BullMQ for Node", 5, True, _against(NODE, "drain-2")),
    Target("round trip", "BullMQ for Node", 5, True, _against(NODE, "round")),
    Target("round trip", "the fastest Python peer", 6, True, _against_fastest("round")),
    Target("add one by one, awaited", "BullMQ for Node", 2.5, True, _against(NODE, "add-one")),
    Target(
        "add one by one, awaited",
        "the fastest async Python peer",
        2,
        True,
        _against_fastest("add-one", is_async=True),
    ),
    Target("add one by one, awaited", "huey", 1.3, True, _against("huey", "add-one")),
    Target("add, 1,000 awaited at once", "BullMQ for Node", 5, True, _against(NODE, "add-many")),
    Target("add in bulk", "BullMQ for Node", 4, True, _against(NODE, "add-bulk")),
    Target("idle latency, p50", "BullMQ for Node", 0.5, False, _against(NODE, "idle", "p50")),
    Target("idle latency, p50", "the fastest Python peer", 0.75, False, _against_fastest("idle", "p50")),
    Target("idle latency, p99", "its own p50", 2, False, _own_tail),
    Target(
        "server CPU per job in drain", "BullMQ for Node", 0.4, False, _against(NODE, "drain", "server_us")
    ),
    Target("memory per waiting job", "BullMQ for Node", 1.0, False, _against(NODE, "memory", "bytes")),
    Target(
        "drain, one worker process", "the bare loop", 0.7, True, _against("bare", "drain"), is_percent=True
    ),
)


def judge(results: Results) -> list[Verdict]:
    """Return all targets with what was measured."""
    return [
        Verdict(target, target.figure(results, "toril"), target.figure(results, FLOOR)) for target in TARGETS
    ]
