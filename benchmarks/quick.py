"""`make bench-quick`: toril alone, against the last recorded run, so that a slower hot path is seen before it lands.

Another machine, or a busier one, is not a slower hot path: both runs are divided by their yardsticks. What looks slower
is measured a second time before it is said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.cells import Settings
from benchmarks.contestants import CONTESTANTS
from benchmarks.measures import ratio
from benchmarks.runner import Results, run
from benchmarks.workloads import WORKLOADS

__all__ = ["TOLERANCE", "Change", "compare", "quick"]

TOLERANCE: Final = 0.15
"""Of rates and of what a job costs; latencies, which vary more, get twice as much."""
CHECKED: Final = (
    ("add-one", "rate"),
    ("add-many", "rate"),
    ("add-bulk", "rate"),
    ("drain", "rate"),
    ("drain", "commands"),
    ("round", "rate"),
    ("idle", "p50"),
)
_UNITS: Final = {"rate": "jobs/s", "commands": "commands per job", "p50": "ms, p50"}


@dataclass(frozen=True)
class Change:
    """One figure, then and now.

    Attributes:
        was: As recorded.
        now: As measured.
        better: How much better it has become, on an equal machine: 0.1 is 10 % faster or cheaper, below 0 worse.
        is_slower: Whether it is worse by more than the tolerance.
    """

    workload: str
    figure: str
    was: float
    now: float
    better: float
    is_slower: bool

    def __str__(self) -> str:
        word = "SLOWER" if self.is_slower else "ok"
        title = f"{WORKLOADS[self.workload].title}, {_UNITS[self.figure]}"
        return f"{title:55} {self.was:>10,.2f} {self.now:>10,.2f} {self.better:>+8.0%}  {word}"


def compare(now: Results, recorded: Results, tolerance: float = TOLERANCE) -> list[Change]:
    """Return how toril's figures have changed, on an equal machine. What either run lacks is left out."""
    machine = median(now.raw["yardstick"]) / median(recorded.raw["yardstick"])
    changes: list[Change] = []
    for workload, figure in CHECKED:
        is_now, was = (results.cell(workload, "toril").of(figure) for results in (now, recorded))
        change = ratio(is_now, was)
        if is_now is None or was is None or change is None:
            continue
        if figure == "rate":
            change /= machine
        elif figure == "commands":
            change = 1 / change
        else:
            change = 1 / (change * machine)
        allowed = tolerance * 2 if figure == "p50" else tolerance
        changes.append(Change(workload, figure, was, is_now, change - 1, change < 1 - allowed))
    return changes


def quick(recorded: Results | None, rounds: int, seconds: float, tolerance: float) -> int:
    """Measure, compare, print; return the exit code."""
    workloads = list(dict.fromkeys(workload for workload, _ in CHECKED))
    now = _measured(workloads, rounds, seconds)
    if (
        bound := ratio(now.cell("drain", "toril").of("rate"), now.cell("drain", "bare").of("rate"))
    ) is not None:
        print(f"\ndrain reaches {bound:.0%} of the bare loop")
    for workload in now.workloads:
        if (error := now.cell(workload.name, "toril").error) != "":
            print(f"{workload.title}: {error}")
            return 1
    if recorded is None:
        print("No run has been recorded, so there is nothing to compare with: make bench")
        return 0
    changes = compare(now, recorded, tolerance)
    if slower := [change.workload for change in changes if change.is_slower]:
        print(f"\nMeasuring again what looks slower: {', '.join(dict.fromkeys(slower))}")
        again = compare(_measured(list(dict.fromkeys(slower)), rounds, seconds), recorded, tolerance)
        better = {(change.workload, change.figure): change for change in again}
        changes = [
            max(change, better.get((change.workload, change.figure), change), key=lambda one: one.better)
            for change in changes
        ]
    print(
        f"\n{'against ' + recorded.raw['recorded'][:16] + ', commit ' + recorded.raw['commit']:55}", end=" "
    )
    print(f"{'then':>10} {'now':>10} {'change':>8}  (on an equal machine; tolerance {tolerance:.0%})")
    for change in changes:
        print(change)
    worse = [change for change in changes if change.is_slower]
    print(
        f"\nThe hot path got slower in {len(worse)} of {len(changes)}." if worse else "\nNothing got slower."
    )
    return 1 if worse else 0


def _measured(workloads: Sequence[str], rounds: int, seconds: float) -> Results:
    return run(
        [CONTESTANTS["toril"], CONTESTANTS["bare"]],
        [WORKLOADS[name] for name in workloads],
        rounds,
        Settings(seconds),
    )
