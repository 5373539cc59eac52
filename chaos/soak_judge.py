"""What came of a soak: joins the ledgers of all its processes with the samples, and holds them against the bounds.

A half-hour writes more than a million lines, so they are read once, and of each job only numbers are kept. The lines of
those jobs that something is wrong with are read once more, and become part of the figures.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from .ledger import read

__all__ = ["CALM", "LEAST_FOR_SLOPES", "Idle", "Sample", "judge", "slope_per_hour", "within_bounds"]

CALM: Final = 20.0
"""Seconds after a fault that do not count as calm."""
WARM_UP: Final = 600.0
MOST_EVENTS: Final = 10_100
"""10,000 events, and one node of a stream more, since it is cut by whole nodes."""
_MOST_TRAILS: Final = 20
LEAST_FOR_SLOPES: Final = 900.0
"""Seconds of samples after the warm-up: in less, noise of a tenth of a MB makes a slope of 2 MB an hour."""


@dataclass
class Sample:
    """What was there at one moment. `rss_mb`, `fds` and `threads` are the steady worker's; `lag_ms` is the driver's."""

    t: float
    rss_mb: float
    fds: int
    threads: int
    backlog: int
    used_memory_mb: float
    keys: int
    clients: int
    events: int
    output_mb: float
    lag_ms: float


@dataclass
class Idle:
    """What is held when nothing runs. Files, threads and tasks are the steady worker's.

    Attributes:
        records: Jobs that are there.
        others: How many keys there are besides, by kind; what belongs to single jobs is not among them.
    """

    fds: int
    threads: int
    tasks: int
    clients: int
    records: int
    others: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class _Tale:
    """One job, as the ledgers tell it."""

    sent: float = 0.0
    is_plain: bool = False
    is_acked: bool = False
    is_doomed: bool = False
    fails: int = 0
    starts: int = 0
    ends: int = 0
    went_well: int = 0
    taken_back: int = 0
    completed: int = 0
    failed: int = 0
    first: float = 0.0


class Tales:
    """All of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.jobs: dict[str, _Tale] = {}
        self.faults: list[dict[str, Any]] = []
        self.marks: list[float] = []
        self.lags: list[tuple[float, float]] = []
        self.reasons: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.restarts: list[float] = []
        for line in read(directory):
            self._hear(line)
        self.marks.sort()

    def _hear(self, line: dict[str, Any]) -> None:
        event = line["e"]
        if event in ("fault", "healed"):
            self.marks.append(line["t"])
            if line["what"] == "server ends":
                self.restarts.append(line["t"])
            elif event == "fault" and "pid" not in line:
                self.faults.append(line)
        elif event == "lag":
            self.lags.append((line["t"], line["s"]))
        elif event == "error":
            self.errors[line["what"]] += 1
        elif "id" in line:
            self._hear_of_job(event, line)

    def _hear_of_job(self, event: str, line: dict[str, Any]) -> None:
        tale = self.jobs.setdefault(line["id"], _Tale())
        if event == "sent":
            tale.sent, tale.fails = line["t"], line["fails"]
            tale.is_plain = line.get("is_plain", False)
            tale.is_doomed = line.get("is_doomed", False)
        elif event == "acked":
            tale.is_acked = True
        elif event == "start":
            tale.starts += 1
            tale.first = min(tale.first or line["t"], line["t"])
        elif event == "end":
            tale.ends += 1
            tale.went_well += not line.get("failed")
        elif event == "taken back":
            tale.taken_back += 1
        elif event == "completed":
            tale.completed += 1
        elif event == "failed":
            tale.failed += 1
            if not tale.is_doomed:
                self.reasons[str(line.get("why"))] += 1

    def is_calm(self, when: float, until: float) -> bool:
        """Whether no fault was near."""
        after = bisect_left(self.marks, when - CALM)
        return after == len(self.marks) or self.marks[after] > until + 2

    def trails(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """The ledgers' lines about a few jobs, in the order of time."""
        wanted = set(ids[:_MOST_TRAILS])
        found: dict[str, list[dict[str, Any]]] = {job_id: [] for job_id in sorted(wanted)}
        if wanted:
            for line in read(self.directory):
                if line.get("id") in wanted:
                    found[line["id"]].append(line)
        return {
            job_id: [_short(line) for line in sorted(some, key=lambda line: line["t"])]
            for job_id, some in found.items()
        }


def _short(line: dict[str, Any]) -> str:
    rest = " ".join(f"{key}={value}" for key, value in line.items() if key not in ("e", "t", "id"))
    return f"{line['t']:.3f} {line['e']} {rest}".rstrip()


def judge(tales: Tales, samples: Sequence[Sample], states: dict[str, str], began: float) -> dict[str, Any]:
    """Return the figures.

    Args:
        tales: What the ledgers tell.
        samples: Taken on the way.
        states: In which state each job is that still is there.
        began: By the ledger's clock.
    """
    lost: list[str] = []
    false_failed: list[str] = []
    unexplained: list[str] = []
    ended_twice: list[str] = []
    counts: Counter[str] = Counter()
    for job_id, tale in tales.jobs.items():
        counts["jobs"] += tale.is_acked
        counts["executed"] += tale.starts
        counts["taken_back"] += tale.taken_back
        state = states.get(job_id)
        ends = tale.completed + tale.failed
        if tale.is_acked and not ends and state is None:
            lost.append(job_id)
        if ends > 1:
            ended_twice.append(job_id)
        counts["unrun"] += bool(tale.completed and not tale.went_well)
        if tale.is_doomed:
            counts["doomed"] += tale.is_acked
            counts["spared"] += tale.is_acked and not tale.failed
        elif tale.failed or state == "failed":
            false_failed.append(job_id)
        extra = tale.starts - 1 - tale.fails
        if tale.sent and extra > 0:
            explained = min(extra, max(tale.starts - tale.ends, tale.taken_back))
            counts["duplicates"] += extra
            counts["explained"] += explained
            if explained < extra:
                unexplained.append(job_id)
    waits = sorted(
        tale.first - tale.sent
        for tale in tales.jobs.values()
        if tale.is_plain and tale.first and tales.is_calm(tale.sent, tale.sent)
    )
    lags = sorted(late for when, late in tales.lags if tales.is_calm(when, when))
    warm = [one for one in samples if one.t >= min(WARM_UP, samples[-1].t / 3)]
    times, rss = [one.t for one in warm], [one.rss_mb for one in warm]
    return {
        "jobs": counts["jobs"],
        "executed": counts["executed"],
        "lost": len(lost),
        "ended_twice": len(ended_twice),
        "completed_unrun": counts["unrun"],
        "duplicates": counts["duplicates"],
        "explained": counts["explained"],
        "taken_back": counts["taken_back"],
        "doomed": counts["doomed"],
        "spared": counts["spared"],
        "false_failed": len(false_failed),
        "reasons": dict(tales.reasons.most_common(5)),
        "errors": dict(tales.errors.most_common(10)),
        "trails": tales.trails([*lost, *false_failed, *ended_twice, *unexplained]),
        "faults": [
            {"what": one["what"], "t": round(one["t"] - began, 1)}
            for one in sorted(tales.faults, key=lambda one: one["t"])
        ],
        "warm_s": round(times[-1] - times[0], 1),
        "rss_slope_mb_per_hour": round(slope_per_hour(times, rss), 2),
        "rss_growth_mb": round(statistics.mean(rss[-6:]) - statistics.mean(rss[:6]), 2),
        "used_memory_slope_mb_per_hour": round(
            slope_per_hour(times, [one.used_memory_mb for one in warm]), 2
        ),
        "most_events": max(one.events for one in samples),
        "most_output_mb": max(one.output_mb for one in samples),
        "calm_wait_p99_ms": percentile_ms(waits),
        "calm_lag_p99_ms": percentile_ms(lags),
        "lags_ms": lags_by_sample(tales.lags, [began + one.t for one in samples]),
        "most_lag_of_driver_ms": max(one.lag_ms for one in samples),
    }


def lags_by_sample(lags: Sequence[tuple[float, float]], moments: Sequence[float]) -> list[float]:
    """Of the lags between one sample and the next, those that 99 of 100 do not pass, in ms; 0.0 where there is none."""
    found: list[float] = []
    for begin, end in pairwise([0.0, *moments]):
        found.append(percentile_ms(sorted(late for when, late in lags if begin < when <= end)) or 0.0)
    return found


def percentile_ms(values: Sequence[float], share: float = 0.99) -> float | None:
    """Of sorted seconds."""
    return round(values[int(len(values) * share)] * 1000, 1) if values else None


def slope_per_hour(times: Sequence[float], values: Sequence[float]) -> float:
    """By least squares."""
    return statistics.linear_regression(times, values).slope * 3600 if len(times) > 2 else 0.0


def within_bounds(figures: dict[str, Any]) -> list[str]:
    """Which bounds are broken, each with its figure."""
    first = figures["samples"][0]["rss_mb"]
    wanted: list[tuple[str, float | None, float]] = [
        ("lost", figures["lost"], 0),
        ("ended more than once", figures["ended_twice"], 0),
        ("completed without a good run", figures["completed_unrun"], 0),
        ("left", figures["left"], 0),
        ("wrongly failed", figures["false_failed"], 0),
        ("should have failed", figures["spared"], 0),
        ("unexplained duplicates", figures["duplicates"] - figures["explained"], 0),
        ("unclean log lines", figures["unclean_log_lines"], 0),
        ("events", figures["most_events"], MOST_EVENTS),
        ("wait p99, ms", figures["calm_wait_p99_ms"], 50),
        ("lag p99, ms", figures["calm_lag_p99_ms"], 20),
        ("memory's growth, MB", figures["rss_growth_mb"], max(10, first * 0.05)),
        ("output buffers, MB", figures["most_output_mb"], 1),
    ]
    if figures["warm_s"] >= LEAST_FOR_SLOPES:
        wanted += [
            ("memory's slope, MB/h", figures["rss_slope_mb_per_hour"], 2),
            ("server's memory, MB/h", abs(figures["used_memory_slope_mb_per_hour"]), 1),
        ]
    broken = [
        f"{name}: {value:g}, not {most:g}"
        for name, value, most in wanted
        if value is not None and value > most
    ]
    for before, after in pairwise(figures["idle"]):
        broken += [
            f"{name} at idle: {before[name]}, then {after[name]}"
            for name in before
            if before[name] != after[name]
        ]
    return [*broken, *figures["stage"], *figures["fsck"], *figures["cycles"]["broken"]]
