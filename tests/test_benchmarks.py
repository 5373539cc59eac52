"""The benchmarks: their arithmetic, and that a real run of a few jobs counts them. Speed is not asserted here."""

from __future__ import annotations

import shutil
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, runner
from benchmarks.arena import Arena, BenchError
from benchmarks.cells import Bench, Settings
from benchmarks.chart import Bar, Panel, svg
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.measures import Cell, percentile, ratio
from benchmarks.profile import hop_of
from benchmarks.quick import compare
from benchmarks.runner import Results
from benchmarks.tally import Reader, Tally
from benchmarks.targets import TARGETS, fastest_peer, judge
from benchmarks.workloads import WORKLOADS


def results(cells: dict[str, dict[str, dict[str, Any]]], yardstick: float = 1000, **more: Any) -> Results:
    machine = {"cores": 2, "processor": "a processor", "system": "Linux", "python": "3.11"}
    raw = {
        "recorded": "2026-11-24T12:00:00+00:00",
        "commit": "abc",
        "command": "python -m benchmarks run",
        "machine": machine,
        "server": "Valkey 9",
        "rounds": 3,
        "seconds_per_measurement": 1.0,
        "concurrency": 100,
        "yardstick": [yardstick],
        "versions": {},
        "cells": cells,
    }
    return Results({**raw, **more})


def rates(*values: float) -> dict[str, Any]:
    return {"rounds": [{"rate": value} for value in values]}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """Of a hundred values the 99th percentile is the 99th, and of one value everything is that value."""
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1)] == [50, 99, 100, 100]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.999) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """A round that went wrong by far does not move it, and a figure that no round has is none."""
    assert Cell(rates(90, 100, 5000)).of("rate") == 100
    assert Cell(rates(90, 110)).of("rate") == 100
    assert Cell({"missing": "no flows"}).of("rate") is None
    assert ratio(10, 4) == 2.5
    assert ratio(10, None) is ratio(None, 10) is ratio(10, 0) is None


def test_the_targets_compare_with_the_right_contestant() -> None:
    """The fastest peer is a Python queue, never Node, toril or one of the loops; and what is missing is not met."""
    found = results(
        {
            "drain": {
                "toril": rates(12_000),
                "bare": rates(16_000),
                "floor": rates(20_000),
                "bullmq-node": rates(3_000),
                "arq": rates(1_000),
                "huey": rates(2_400),
                "saq": {"error": "hung"},
            },
            "add-one": {"toril": rates(6_000), "arq": rates(2_500), "huey": rates(5_000)},
            "idle": {
                "toril": {"rounds": [{"p50": 0.6}]},
                "floor": {"rounds": [{"p50": 0.2}]},
                "bullmq-node": {"rounds": [{"p50": 1.0}]},
                "huey": {"rounds": [{"p50": 0.8}]},
            },
        }
    )
    assert fastest_peer(found, "drain") == "huey"
    assert fastest_peer(found, "add-one", is_async=True) == "arq"
    verdicts = {(one.target.workload, one.target.against): one for one in judge(found)}
    assert len(verdicts) == len(TARGETS)
    assert verdicts["drain, one worker process", "BullMQ for Node"].words == (
        "at least 4.00×",
        "4.00×",
        "met",
        "6.67×",
    )
    fastest = verdicts["drain, one worker process", "the fastest Python peer"]
    assert fastest.words == ("at least 6.00×", "5.00×", "falls short", "8.33×")
    assert verdicts["drain, one worker process", "the bare loop"].words == (
        "at least 70 %",
        "75 %",
        "met",
        "125 %",
    )
    latency = verdicts["idle latency, p50", "BullMQ for Node"]
    assert latency.words == ("at most 0.50×", "0.60×", "falls short", "0.20×")
    assert verdicts["idle latency, p50", "the fastest Python peer"].words[1:] == ("0.75×", "met", "0.25×")
    assert verdicts["round trip", "BullMQ for Node"].words[1:] == ("not measured", "not measured", "–")


def test_the_tables_say_what_a_contestant_cannot_do() -> None:
    """A missing feature is named, an error is listed, and neither hides the figures of the others."""
    cells = {
        "drain": {"toril": rates(12_000), "arq": {"error": "arq worker ended: boom"}},
        "flows": {"toril": rates(900), "arq": {"missing": "no flows"}},
    }
    text = report.tables(results(cells))
    assert "| flows of 100 children | 900 | no flows |" in text
    assert "| drain, 1 worker process | 12,000 | failed |" in text
    assert "arq, drain, 1 worker process: arq worker ended: boom (0 rounds succeeded)" in text


def test_a_part_of_a_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    """Only what stands between the markers of that command changes, however often it is written."""
    page = tmp_path / "page.md"
    page.write_text(
        "by hand\n\n<!-- begin: x -->\nold\n<!-- end -->\n\n<!-- begin: y -->\nkept\n<!-- end -->\n"
    )
    for _ in range(2):
        report.replace_part(page, "x", "new\n")
    assert page.read_text() == (
        "by hand\n\n<!-- begin: x -->\n\nnew\n\n<!-- end -->\n\n<!-- begin: y -->\nkept\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="no part"):
        report.replace_part(page, "z", "new")


def test_the_chart_is_svg_whatever_the_names_are() -> None:
    """It parses, the longest bar fits, and text is escaped."""
    panels = [
        Panel(
            "a & b",
            [Bar("<toril>", 20.0, "20", is_ours=True), Bar("other", 5.0, "5"), Bar("none", None, "–")],
        ),
        Panel("empty", []),
    ]
    root = ElementTree.fromstring(svg('"title"', panels))
    name = "{http://www.w3.org/2000/svg}"
    widths = [float(one.attrib["width"]) for one in root.iter(f"{name}rect") if one.get("rx")]
    assert len(widths) == 2
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    assert max(widths) < float(root.attrib["width"]) / 2
    assert {"a & b", "<toril>", "–"} <= {text.text for text in root.iter(f"{name}text")}


def test_a_slower_hot_path_is_flagged_and_a_slower_machine_is_not() -> None:
    """On half as fast a machine, half the rate and twice the latency are equal; commands never depend on it."""

    def cells(rate: float, p50: float, commands: float) -> dict[str, Any]:
        return {
            "drain": {"toril": {"rounds": [{"rate": rate, "commands": commands}]}},
            "idle": {"toril": {"rounds": [{"p50": p50}]}},
        }

    recorded = results(cells(20_000, 1.0, 8), yardstick=1000)

    def slower(now: Results) -> list[str]:
        return [f"{one.workload} {one.figure}" for one in compare(now, recorded) if one.is_slower]

    assert slower(results(cells(20_000, 1.0, 8), yardstick=1000)) == []
    assert slower(results(cells(10_000, 2.0, 8), yardstick=500)) == []
    assert slower(results(cells(20_000, 1.0, 8), yardstick=2000)) == ["drain rate", "idle p50"]
    assert slower(results(cells(16_000, 1.0, 8), yardstick=1000)) == ["drain rate"]
    assert slower(results(cells(20_000, 1.0, 10), yardstick=1000)) == ["drain commands"]
    assert slower(results(cells(20_000, 1.6, 8), yardstick=1000)) == ["idle p50"]


def test_a_sample_belongs_to_the_deepest_frame_of_toril() -> None:
    """What a library does is on the account of who called it; the loop's own time is the loop's."""
    path = "/somewhere/src/toril"
    main = "main (benchmarks/contestants/harness.py:10)"
    fetching = f"Fetching._lane ({path}/_loops/fetching.py:5)"
    assert hop_of([main, fetching, f"dumps ({path}/codec.py:7)"]) == "JSON"
    assert hop_of([main, fetching, "wait (asyncio/tasks.py:1)"]).startswith("fetch and finish")
    assert hop_of([main, "Tally.hit (benchmarks/tally.py:3)"]).startswith("the benchmark itself")
    assert hop_of([main, "Runner.run (asyncio/runners.py:118)"]).startswith("the event loop")
    assert hop_of([f"f ({path}/a_new_file.py:1)"]) == "a_new_file.py"


def test_a_tally_holds_counts_and_delays_of_several_processes(tmp_path: Path) -> None:
    """Counts add up, and the first delays of each process can be left out."""
    tally = Tally(str(tmp_path))
    tally.hits(40)
    sent = time.monotonic_ns() - 5_000_000
    for _ in range(3):
        tally.hit(sent)
    reader = Reader(tmp_path)
    assert reader.count() == 43
    assert len(reader.delays_ms()) == 3
    assert all(delay >= 5 for delay in reader.delays_ms(skip=1))
    assert len(reader.delays_ms(skip=1)) == 2


@pytest.mark.parametrize("name", ["toril", "bare", "floor", "bullmq-node"])
def test_a_small_real_run_counts_every_job(name: str) -> None:
    """Added one by one and all at once, drained, both at once, and timed when idle: nobody reports an error."""
    if (absence := CONTESTANTS[name].absence()) != "":
        pytest.skip(absence)
    wanted = ("add-one", "drain") if name == "bare" else ("add-one", "add-many", "drain", "round", "idle")
    found = runner.run(
        [CONTESTANTS[name]],
        [WORKLOADS[workload] for workload in wanted],
        1,
        Settings(seconds=0.03, limit=30),
        say=lambda *_args, **_kwargs: None,
    )
    for workload in wanted:
        cell = found.cell(workload, name)
        assert cell.excuse == ""
        assert len(cell.rounds) == 1
        assert cell.rounds[0]["server_us"] > 0
    assert found.cell("drain", name).of("commands") is not None
    assert found.raw["versions"][name]
    if "idle" in wanted:
        assert found.cell("idle", name).of("p50") is not None


def test_a_contestant_that_fails_or_hangs_is_noted_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error stands in the results, and the next contestant is measured."""
    program = tmp_path / "silent.py"
    program.write_text("import sys, time\nprint('a word', file=sys.stderr)\ntime.sleep(60)\n")

    def command(self: Contestant) -> list[str]:
        return [shutil.which("python3") or "python3", str(program)] if self.name == "arq" else original(self)

    original = Contestant.command
    monkeypatch.setattr(Contestant, "command", command)
    monkeypatch.setattr(Contestant, "absence", lambda self: "")  # pyright: ignore[reportUnknownLambdaType]
    found = runner.run(
        [CONTESTANTS["arq"], CONTESTANTS["toril"]],
        [WORKLOADS["add-one"]],
        1,
        Settings(seconds=0.01, limit=3),
        say=lambda *_args, **_kwargs: None,
    )
    assert found.cell("add-one", "arq").error.startswith("arq producer did not answer in time")
    assert found.cell("add-one", "toril").of("rate") is not None


def test_a_run_that_loses_a_job_is_an_error() -> None:
    """What the server does not hold at the end has not completed, however fast it went."""
    with Arena() as arena:
        bench = Bench(arena, CONTESTANTS["toril"], Settings(seconds=0.01, limit=30), {})
        try:
            bench.start()
            # Looking in the wrong place is like losing the jobs.
            bench.hello["kept"] = "bull:bench:failed"
            with pytest.raises(BenchError, match="120 jobs have run, and 0 are completed"):
                bench.measure(WORKLOADS["drain"])
        finally:
            bench.end()
