"""How long jobs wait, by the ledger: from `add` to start, and those with a delay from when they were due."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

__all__ = ["waits"]

SHARE: Final = 0.99


def waits(lines: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Milliseconds within which 99 of 100 begin, as facts of a cell: plain jobs, and delayed ones; toril's alone.

    What is not named is not among them: what it waited for is known by another id.
    """
    added: dict[str, dict[str, Any]] = {}
    begun: dict[str, float] = {}
    for line in sorted(lines, key=lambda line: line["t"]):
        if line["e"] == "sent":
            added[line["id"]] = line
        elif line["e"] == "start":
            begun.setdefault(line["id"], line["t"])
    of_kind: dict[str, list[float]] = {"wait_p99_ms": [], "late_p99_ms": []}
    for job_id, line in added.items():
        if job_id in begun and (line["delay"] or line.get("is_plain")):
            kind = "late_p99_ms" if line["delay"] else "wait_p99_ms"
            of_kind[kind].append(begun[job_id] - line["t"] - line["delay"])
    return {
        kind: round(1000 * sorted(values)[int(len(values) * SHARE)])
        for kind, values in of_kind.items()
        if values
    }
