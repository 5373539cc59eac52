"""Rounds over contestants over workloads, and the JSON of what was found.

Rounds are interleaved: everybody's first, then everybody's second, so that what the machine does
meanwhile hits all alike.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from benchmarks import yardstick
from benchmarks.arena import ROOT, Arena, BenchError
from benchmarks.cells import Bench, Settings
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.measures import Cell, Sample
from benchmarks.workloads import WORKLOADS, Workload

__all__ = ["Results", "run"]


class Results:
    """All that was found; what the JSON holds.

    Args:
        raw: `recorded`, `commit`, `machine`, `server`, `command`, `rounds`, `concurrency`; `yardstick` by round;
            `versions` by contestant;
            `cells`: workload -> contestant -> {rounds, missing, error}.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a recorded run."""
        return cls(json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """Record this run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.raw, indent=1, sort_keys=True) + "\n")

    @property
    def contestants(self) -> list[str]:
        """Who took part, in the order of the list of contestants."""
        taking_part = {name for cells in self.raw["cells"].values() for name in cells}
        return [name for name in CONTESTANTS if name in taking_part]

    @property
    def workloads(self) -> list[Workload]:
        """What was measured."""
        return [workload for name, workload in WORKLOADS.items() if name in self.raw["cells"]]

    def cell(self, workload: str, contestant: str) -> Cell:
        """Return what was found of one contestant in one workload; empty if nothing was."""
        return Cell(self.raw["cells"].get(workload, {}).get(contestant, {}))

    def note(self, workload: str, contestant: str, sample: Sample | None = None, **excuse: str) -> None:
        """Add what a round found, or why it found nothing."""
        cell = self.raw["cells"].setdefault(workload, {}).setdefault(contestant, {"rounds": []})
        if sample is not None:
            cell["rounds"].append({key: _short(value) for key, value in sample.items()})
        cell.update(excuse)


def run(
    contestants: Sequence[Contestant],
    workloads: Sequence[Workload],
    rounds: int,
    settings: Settings,
    *,
    say: Any = print,
    keep: Path | None = None,
) -> Results:
    """Measure everything. Who fails is noted with the error, and the run goes on.

    Args:
        contestants: Who.
        workloads: What.
        rounds: How often.
        settings: How.
        say: Told about each contestant's round.
        keep: Where to record what there is after each round, so that a run that is broken off leaves something.
    """
    with Arena() as arena:
        results = Results(describe(arena, rounds, settings))
        rates: dict[tuple[str, str], float] = {}
        started = time.monotonic()
        for number in range(rounds):
            results.raw["yardstick"].append(_short(yardstick.measure(arena.client)))
            for contestant in contestants:
                bench = Bench(arena, contestant, settings, rates)
                began = time.monotonic()
                words = list(_one_round(bench, workloads, number, results))
                passed = time.monotonic() - started
                say(
                    f"[{passed:5.0f} s] round {number + 1}/{rounds} {contestant.name:14}"
                    f" {time.monotonic() - began:5.1f} s" + (f"  {'; '.join(words)}" if words else ""),
                    flush=True,
                )
            if keep is not None:
                results.raw["rounds"] = number + 1
                results.save(keep)
        results.raw["seconds"] = round(time.monotonic() - started)
    return results


def _one_round(bench: Bench, workloads: Iterable[Workload], number: int, results: Results) -> Iterable[str]:
    name = bench.contestant.name
    try:
        bench.start()
    except BenchError as error:
        for workload in workloads:
            results.note(workload.name, name, error=str(error))
        yield str(error)
        return
    results.raw["versions"][name] = bench.hello["versions"]
    try:
        for workload in workloads:
            if (missing := bench.lacks(workload)) != "":
                results.note(workload.name, name, missing=missing)
            elif not (workload.is_once and number):
                try:
                    results.note(workload.name, name, bench.measure(workload))
                except BenchError as error:
                    results.note(workload.name, name, error=str(error))
                    yield f"{workload.name}: {error}"
                except (redis.RedisError, OSError, ValueError, KeyError) as error:
                    # The server has gone, or a contestant says what nobody understands: the others still count.
                    results.note(workload.name, name, error=f"{type(error).__name__}: {error}")
                    yield f"{workload.name}: {type(error).__name__}: {error}"
                    bench.end()
                    bench.arena.revive()
    finally:
        bench.end()


def describe(arena: Arena, rounds: int, settings: Settings) -> dict[str, Any]:
    """Return what a recorded run says about itself. No name of a machine, no path."""
    server: Any = arena.client.info("server")
    name = "Valkey" if server.get("server_name") == "valkey" else "Redis"
    version = server.get("valkey_version") or server["redis_version"]
    return {
        "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": f"{platform.system()} {platform.release().split('-')[0]}",
            "python": platform.python_version(),
        },
        "server": f"{name} {version}",
        "rounds": rounds,
        "seconds_per_measurement": settings.seconds,
        "concurrency": settings.concurrency,
        "yardstick": [],
        "versions": {},
        "cells": {},
    }


def commit() -> str:
    """Return the commit that is measured, with a `+` where files differ from it; empty outside a repository."""
    try:
        head = subprocess.check_output(
            ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, text=True, stderr=subprocess.DEVNULL
        ).strip()
        changed = subprocess.check_output(
            ["git", "status", "--porcelain", "-uno", "src"], cwd=ROOT, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed.strip() else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _short(value: float) -> float:
    return float(f"{value:.5g}")
