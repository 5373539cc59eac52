"""`python -m benchmarks`: run, quick, scale, profile, report."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks import report
from benchmarks.cells import Settings
from benchmarks.contestants import CONTESTANTS
from benchmarks.profile import profile
from benchmarks.quick import TOLERANCE, quick
from benchmarks.runner import Results, run
from benchmarks.scale import TESTS, scale
from benchmarks.scale import table as scale_table
from benchmarks.workloads import WORKLOADS

RESULTS: Final = Path(__file__).resolve().parent / "results"
RECORDED: Final = RESULTS / "latest.json"
PARTIAL: Final = RESULTS / "partial.json"
"""Of a run that was broken off: `report --input` shows it."""


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What toril costs, against what."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    full = commands.add_parser("run", help="measure all contestants; write JSON, chart and page")
    full.add_argument("--contestants", type=_names(CONTESTANTS), default=list(CONTESTANTS), metavar="A,B")
    full.add_argument("--workloads", type=_names(WORKLOADS), default=list(WORKLOADS), metavar="A,B")
    full.add_argument("--rounds", type=int, default=5)
    full.add_argument("--seconds", type=float, default=1.0, help="about how long one measurement lasts")
    full.add_argument("--concurrency", type=int, default=100)
    full.add_argument("--limit", type=float, default=60.0, help="seconds after which a contestant hangs")
    full.add_argument("--output", type=Path, help="where the JSON goes; then chart and page stay as they are")

    short = commands.add_parser("quick", help="measure toril alone, and compare with the recorded run")
    short.add_argument("--rounds", type=int, default=5)
    short.add_argument("--seconds", type=float, default=0.6)
    short.add_argument("--tolerance", type=float, default=TOLERANCE, help="how much slower is still noise")
    short.add_argument("--against", type=Path, default=RECORDED)

    large = commands.add_parser("scale", help="what holds for a few must hold for many")
    large.add_argument("--tests", type=_names(TESTS), default=list(TESTS), metavar="A,B")
    large.add_argument("--factor", type=float, default=1.0, help="of the full size")
    large.add_argument("--rounds", type=int, default=3, help="how often each test is run; the medians count")
    large.add_argument("--write", action="store_true", help="write the table into the page")

    hops = commands.add_parser("profile", help="where the time of a job goes, hop by hop")
    hops.add_argument("--jobs", type=int, default=100_000)
    hops.add_argument("--write", action="store_true", help="write the tables into the page")

    page = commands.add_parser(
        "report", help="write chart and page from the recorded run, and print its tables"
    )
    page.add_argument("--input", type=Path, default=RECORDED)
    page.add_argument("--print", action="store_true", help="print only")

    arguments = parser.parse_args()
    # So that workers and server are ended on the way out.
    signal.signal(signal.SIGTERM, _leave)
    if arguments.command == "run":
        settings = Settings(arguments.seconds, arguments.concurrency, arguments.limit)
        results = run(
            [CONTESTANTS[name] for name in arguments.contestants],
            [WORKLOADS[name] for name in arguments.workloads],
            arguments.rounds,
            settings,
            keep=PARTIAL,
        )
        results.save(arguments.output or RECORDED)
        PARTIAL.unlink(missing_ok=True)
        print("\n" + report.tables(results))
        if arguments.output is None:
            report.write(results)
        return 0
    if arguments.command == "quick":
        recorded = Results.load(arguments.against) if arguments.against.exists() else None
        return quick(recorded, arguments.rounds, arguments.seconds, arguments.tolerance)
    if arguments.command == "scale":
        lines = scale(arguments.tests, arguments.factor, max(1, arguments.rounds))
        if arguments.write:
            report.replace_part(report.PAGE, "python -m benchmarks scale --write", scale_table(lines))
        return 0 if all(line.is_met for line in lines) else 1
    if arguments.command == "profile":
        text = profile(arguments.jobs)
        print("\n" + text)
        if arguments.write:
            report.replace_part(report.PAGE, "python -m benchmarks profile --write", text)
        return 0
    results = Results.load(arguments.input)
    print(report.tables(results))
    if not arguments.print:
        report.write(results)
    return 0


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _names(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
