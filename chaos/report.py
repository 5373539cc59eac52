"""From the recorded lines to the tables in the docs. `python -m chaos.report` writes them anew."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import toril

from .cells import ABSENT, CELLS
from .soak_judge import LEAST_FOR_SLOPES

__all__ = ["PAGE", "RESULTS", "machine", "rewrite", "table", "write_page"]

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "chaos" / "results" / "matrix.jsonl"
SOAK: Final = ROOT / "chaos" / "results" / "soak.json"
PAGE: Final = ROOT / "docs" / "explanation" / "reliability.md"
_MATRIX: Final = ("<!-- begin: make chaos -->", "<!-- end: make chaos -->")
_SOAK: Final = ("<!-- begin: make chaos SOAK=30 -->", "<!-- end: make chaos SOAK=30 -->")
_NAMES: Final = {"toril": "toril", "bullmq": "BullMQ", "bullmq-python": "BullMQ Python"}
_RESULTS: Final = {"pass": "✓", "fail": "✗", "skip": "–"}


def machine() -> str:
    """Where and with what a line was made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return (
        f"toril {toril.__version__}{f' ({commit})' if commit else ''}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, {datetime.now(UTC):%Y-%m-%d}"
    )


def table(lines: list[dict[str, Any]]) -> str:
    """The matrix in Markdown: one row for each cell and client, and those that were not played."""
    rows = [
        "| # | fault | client | acknowledged | executed | lost | duplicated (explained) | wrongly failed "
        "| seconds to recover | |",
        "|--:|---|---|--:|--:|--:|--:|--:|--:|:-:|",
    ]
    last = ""
    for line in lines:
        key = str(line["cell"])
        name = f"{key} | {CELLS[key].fault}" if key != last else " | "
        last = key
        rows.append(f"| {name} | {_NAMES[line['client']]} | {_figures(line)} | {_RESULTS[line['status']]} |")
    return "\n".join(rows)


def _figures(line: dict[str, Any]) -> str:
    if line["status"] == "skip":
        return " | ".join(["", "", "", "", "", "did not run"])
    recover = line["recover_s"]
    seconds = "" if recover is None else "never" if recover < 0 else f"{recover:.1f}"
    lost = line["lost"] + line["stuck"]
    return " | ".join(
        [
            f"{line['acked']:,}",
            f"{line['executed']:,}",
            f"**{lost:,}**" if lost else "0",
            f"{line['duplicates']:,} ({line['explained']:,})" if line["duplicates"] else "0",
            f"**{line['false_failed']:,}**" if line["false_failed"] else "0",
            seconds,
        ]
    )


def remarks(lines: list[dict[str, Any]]) -> str:
    """What stands below the table: why a row is not green, and which rows there are not."""
    parts: list[str] = []
    # The last field of an invariant names jobs, which tells nobody anything.
    red = [
        f"- {line['cell']}, {_NAMES[line['client']]}: "
        + "; ".join(_short(one) for one in [*line["violations"], line.get("note") or ""] if one)
        for line in lines
        if line["status"] != "pass"
    ]
    if red:
        parts += ["Not green:", "", *red, ""]
    measured = [
        f"- {line['cell']}, {_NAMES[line['client']]}: "
        + ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in line["facts"].items())
        for line in lines
        if line.get("facts")
    ]
    if measured:
        parts += ["Measured besides:", "", *measured, ""]
    played = {CELLS[str(line["cell"])].order[0] for line in lines}
    absent = [f"- {row}: {why}" for row, why in ABSENT.items() if int(row) not in played]
    missing = [f"- {row}: not played" for row in range(1, 45) if row not in played and str(row) not in ABSENT]
    if absent or missing:
        parts += ["Rows of the plan that are not played:", "", *absent, *missing]
    return "\n".join(parts).rstrip()


def _shown(value: Any) -> str:
    """Of what has many parts, the sum."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        value = sum(cast("dict[str, int]", value).values())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _short(violation: str) -> str:
    return violation.partition(", such as")[0].partition(", first")[0].splitlines()[0][:160]


def caption(lines: list[dict[str, Any]]) -> str:
    """How, where and when."""
    skipped = sum(line["status"] == "skip" for line in lines)
    toril_lines = [line for line in lines if line["client"] == "toril"]
    greens = sum(line["status"] == "pass" for line in toril_lines)
    jobs = sum(line["jobs"] for line in toril_lines)
    sizes = " and ".join(f"{size:g}" for size in sorted({line["scale"] for line in lines}))
    loads = [line["load_average"] for line in lines]
    minutes = sum(line["seconds"] for line in lines) / 60
    made = sorted({str(line.get("machine", "")) for line in lines})
    return (
        f"{greens} of {len(toril_lines)} cells are green for toril, over {jobs:,} jobs; {minutes:.0f} minutes "
        f"in all, several at a time, at size {sizes} (the whole is 1). "
        f"Load average of the machine meanwhile: {min(loads):.0f} to {max(loads):.0f}, on "
        f"{os.cpu_count()} processors{_allowed(lines)}. Made by `make chaos`: {'; '.join(made)}. "
        f"{f'{skipped} cells did not run. ' if skipped else ''}Each line with its seed: `chaos/results/matrix.jsonl`."
    )


def _allowed(lines: list[dict[str, Any]]) -> str:
    slack = max(line.get("slack", 1.0) for line in lines)
    return "" if slack == 1 else f", which is why recoveries and exits were allowed {slack:g} times as long"


def soaked(figures: dict[str, Any]) -> str:
    """The soak's paragraph."""
    first, last = figures["samples"][0], figures["samples"][-1]
    verdict = "all bounds held" if not figures["broken"] else f"out of bounds: {'; '.join(figures['broken'])}"
    rss, server, cycles = (
        figures["rss_slope_mb_per_hour"],
        figures["used_memory_slope_mb_per_hour"],
        figures["cycles"],
    )
    slopes = (
        f" (slope {rss:+.1f} MB/h after the warm-up), the server's by {server:+.1f} MB/h"
        if figures["warm_s"] >= LEAST_FOR_SLOPES
        else ", too short a time for slopes"
    )
    opened = (
        f" {cycles['count']:,} times a queue, a worker and a reader of events were opened and closed: memory went from "
        f"{cycles['rss_mb'][0]:.1f} to {cycles['rss_mb'][1]:.1f} MB, open files from {cycles['fds'][0]} to "
        f"{cycles['fds'][1]}."
        if cycles.get("rss_mb")
        else ""
    )
    grown = "".join(f"\n- `{line}`" for line in figures.get("grown", []))
    grown = (
        grown
        and f"\n\nOf the worker's memory, between warm and the end, these lines have grown most:\n{grown}"
    )
    return (
        f"{figures['minutes']:g} minutes at {figures['rate']:g} jobs a second, {len(figures['faults'])} faults: "
        f"{figures['jobs']:,} jobs acknowledged, {figures['executed']:,} runs, **{figures['lost']} lost**, "
        f"{figures['duplicates']} duplicated ({figures['explained']} explained), {figures['false_failed']} wrongly "
        f"failed. The worker's memory went from {first['rss_mb']:.1f} to {last['rss_mb']:.1f} MB{slopes}. In calm "
        f"seconds, p99: {figures['calm_wait_p99_ms']} ms from `add` to start, {figures['calm_lag_p99_ms']} ms of delay "
        f"of a worker's event loop; the driver was late by at most {figures['most_lag_of_driver_ms']} ms.{opened} "
        f"{verdict.capitalize()}; load average of the machine at the end: {figures['load_average']}.{grown}\n\n"
        "![The soak: memory, backlog, faults](../images/soak.svg)"
    )


def rewrite(page: str, marks: tuple[str, str], block: str) -> str:
    """Return the page with a new block between two marks.

    Raises:
        ValueError: It does not have the marks exactly once.
    """
    begin, end = marks
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{PAGE} needs exactly one block between {begin} and {end}")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def write_page() -> None:
    """Write the page's tables from what is recorded."""
    page = PAGE.read_text()
    if RESULTS.exists():
        lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        page = rewrite(page, _MATRIX, f"{table(lines)}\n\n{caption(lines)}\n\n{remarks(lines)}".rstrip())
    if SOAK.exists():
        page = rewrite(page, _SOAK, soaked(json.loads(SOAK.read_text())))
    PAGE.write_text(page)


if __name__ == "__main__":
    write_page()
