"""Tables from a recorded run: for the terminal, for the page in docs/, and the chart that the page shows.

The page has parts that are written by hand; only what stands between the markers is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.arena import ROOT
from benchmarks.chart import Bar, Panel, svg
from benchmarks.contestants import CONTESTANTS
from benchmarks.measures import Cell, ratio
from benchmarks.runner import Results
from benchmarks.targets import judge
from benchmarks.workloads import WORKLOADS, Workload

__all__ = ["replace_part", "tables", "write"]

PAGE: Final = ROOT / "docs" / "explanation" / "performance.md"
CHART: Final = ROOT / "docs" / "images" / "performance.svg"
END: Final = "<!-- end -->"
CHARTED: Final = ("drain", "round", "add-one", "idle")


def tables(results: Results) -> str:
    """Return all tables as Markdown."""
    parts = [
        _provenance(results),
        "### What must hold\n\n" + _targets(results),
        "### Jobs per second\n\n" + _rates(results),
        "### Ratios: toril's jobs/s over theirs\n\n" + _ratios(results),
        "### Latency, from `add` to the start of the processor, in ms\n\n" + _latencies(results),
        "### What a job costs\n\n" + _costs(results),
    ]
    if failures := _failures(results):
        parts.append("### What went wrong\n\n" + failures)
    parts.append("### Versions\n\n" + _versions(results))
    return "\n\n".join(parts) + "\n"


def write(results: Results) -> None:
    """Draw the chart, and put the tables into the page."""
    CHART.write_text(chart(results))
    replace_part(PAGE, "python -m benchmarks run", tables(results))


def replace_part(page: Path, command: str, text: str) -> None:
    """Replace what stands between the markers of a command.

    Raises:
        ValueError: The page has no such markers.
    """
    begin = f"<!-- begin: {command} -->"
    before, marker, rest = page.read_text().partition(begin)
    _, end, after = rest.partition(END)
    if not marker or not end:
        raise ValueError(f"{page.name} has no part between {begin!r} and {END!r}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{END}{after}")


def chart(results: Results) -> str:
    """Draw the workloads that users ask about first."""
    panels: list[Panel] = []
    for workload in (WORKLOADS[name] for name in CHARTED):
        figure = "p50" if workload.kind == "idle" else "rate"
        bars: list[Bar] = []
        for name in results.contestants:
            cell = results.cell(workload.name, name)
            value = cell.of(figure)
            if value is not None:
                text = f"{value:.1f} ms" if figure == "p50" else f"{value:,.0f}"
                bars.append(Bar(CONTESTANTS[name].title, value, text, name == "toril"))
        bars.sort(key=lambda bar: bar.value or 0, reverse=figure == "rate")
        if bars:
            unit = "p50, shorter is better" if figure == "p50" else "jobs/s"
            panels.append(Panel(f"{workload.title}, {unit}", bars))
    return svg(
        f"No-op jobs on {results.raw['server']}, medians over {results.raw['rounds']} round(s)", panels
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _provenance(results: Results) -> str:
    raw, machine = results.raw, results.raw["machine"]
    trial = "**A trial run, with too few rounds for figures.** " if raw["rounds"] < 5 else ""
    return (
        f"{trial}Recorded {raw['recorded'][:16].replace('T', ' ')} UTC by `{raw['command']}`, "
        f"commit {raw['commit'] or 'unknown'}: "
        f"{machine['cores']} cores ({machine['processor']}), {machine['system']}, Python {machine['python']}, "
        f"{raw['server']}. Medians of {raw['rounds']} interleaved rounds, about {raw['seconds_per_measurement']:g} s "
        f"per measurement, concurrency {raw['concurrency']}."
    )


def _targets(results: Results) -> str:
    rows = [
        "| " + " | ".join((verdict.target.workload, verdict.target.against, *verdict.words)) + " |"
        for verdict in judge(results)
    ]
    return "\n".join(
        [
            "| workload | against | target | measured | | the layout's writes alone |",
            "|---|---|--:|--:|---|--:|",
            *rows,
        ]
    )


def _names(results: Results) -> list[str]:
    return [CONTESTANTS[name].title for name in results.contestants]


def _figure(cell: Cell, figure: str, form: str) -> str:
    value = cell.of(figure)
    if value is not None:
        return format(value, form)
    return cell.missing or ("failed" if cell.error else "–")


def _rated(results: Results) -> list[Workload]:
    return [workload for workload in results.workloads if workload.kind in _RATED]


def _rates(results: Results) -> str:
    return table(
        ["", *_names(results)],
        (
            [
                workload.title,
                *(_figure(results.cell(workload.name, name), "rate", ",.0f") for name in results.contestants),
            ]
            for workload in _rated(results)
        ),
    )


def _ratios(results: Results) -> str:
    others = [name for name in results.contestants if name != "toril"]

    def cell(workload: Workload, name: str) -> str:
        theirs = results.cell(workload.name, name)
        found = ratio(results.cell(workload.name, "toril").of("rate"), theirs.of("rate"))
        return f"{found:.2f}" if found is not None else "–"

    return table(
        ["", *(CONTESTANTS[name].title for name in others)],
        ([workload.title, *(cell(workload, name) for name in others)] for workload in _rated(results)),
    )


def _latencies(results: Results) -> str:
    def of(workload: str, name: str) -> list[str]:
        cell = results.cell(workload, name)
        if cell.of("p50") is None:
            return [cell.missing or ("failed" if cell.error else "–"), "", ""]
        return [_figure(cell, figure, ".2f") for figure in ("p50", "p99", "p999")]

    loads = {"idle": "idle", "steady": "1,000 jobs/s", "half": "half load"}
    head = ["", *(f"{load} {part}" for load in loads.values() for part in ("p50", "p99", "p99.9"))]
    return table(
        head,
        (
            [CONTESTANTS[name].title, *(figure for load in loads for figure in of(load, name))]
            for name in results.contestants
        ),
    )


def _costs(results: Results) -> str:
    def row(name: str) -> list[str]:
        drain, one = results.cell("drain", name), results.cell("add-one", name)
        return [
            CONTESTANTS[name].title,
            _figure(one, "producer_us", ",.0f"),
            _figure(one, "server_us", ",.0f"),
            _figure(drain, "server_us", ",.0f"),
            _figure(drain, "worker_us", ",.0f"),
            _figure(one, "commands", ".1f"),
            _figure(drain, "commands", ".1f"),
            _figure(results.cell("memory", name), "bytes", ",.0f"),
        ]

    head = [
        "",
        "add: producer CPU, µs",
        "add: server CPU, µs",
        "drain: server CPU, µs",
        "drain: worker CPU, µs",
        "add: commands",
        "drain: commands",
        "bytes while waiting",
    ]
    return table(head, (row(name) for name in results.contestants))


def _failures(results: Results) -> str:
    found = [
        f"- {CONTESTANTS[name].title}, {workload.title}: {cell.error} ({len(cell.rounds)} rounds succeeded)"
        for workload in results.workloads
        for name in results.contestants
        if (cell := results.cell(workload.name, name)).error
    ]
    return "\n".join(found)


def _versions(results: Results) -> str:
    versions: dict[str, dict[str, str]] = results.raw["versions"]
    return "\n".join(
        f"- {CONTESTANTS[name].title}: "
        + ", ".join(f"{what} {which}" for what, which in versions[name].items())
        for name in results.contestants
        if name in versions
    )


_RATED: Final = ("add", "drain", "round", "delayed", "flows")
