"""The soak judges right, and what is opened and closed leaves nothing behind."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from chaos.cycles import broken, cycles
from chaos.soak_judge import Sample, Tales, judge, lags_by_sample
from chaos.worker import grown
from toril.embedded import EmbeddedServer
from toril.errors import ConfigurationError

SAMPLES = [Sample(float(t), 38.0, 12, 2, 0, 4.0, 100, 12, 10_000, 0.0, 1.0) for t in range(20)]


def figures(directory: Path, lines: list[dict[str, Any]], states: dict[str, str]) -> dict[str, Any]:
    written = [{"t": float(number), **line} for number, line in enumerate(lines, 1)]
    (directory / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    return judge(Tales(directory), SAMPLES, states, 0.0)


def added(job_id: str, **facts: Any) -> list[dict[str, Any]]:
    return [{"e": "sent", "id": job_id, "fails": 0, **facts}, {"e": "acked", "id": job_id}]


def ran(job_id: str, run: int = 1) -> list[dict[str, Any]]:
    return [
        {"e": "start", "id": job_id, "run": run, "pid": 1},
        {"e": "end", "id": job_id, "run": run, "pid": 1},
    ]


def test_a_job_is_lost_that_has_not_ended_and_is_not_there(tmp_path: Path) -> None:
    """Neither who still waits is lost, nor who was removed after its end; who ran, but never ended, is."""
    lines = [*added("gone"), *ran("gone"), *added("waits"), *added("done"), *ran("done")]
    found = figures(tmp_path, [*lines, {"e": "completed", "id": "done"}], {"waits": "wait"})

    assert found["lost"] == 1
    assert list(found["trails"]) == ["gone"]


def test_a_job_fails_wrongly_unless_it_was_to_fail(tmp_path: Path) -> None:
    """Of two that have failed, one was made to; of two that were made to, one was spared."""
    lines = [*added("good"), *added("bad", is_doomed=True), *added("spared", is_doomed=True)]
    ends = [{"e": "failed", "id": "good", "why": "stalled"}, {"e": "failed", "id": "bad", "why": "meant"}]
    found = figures(tmp_path, [*lines, *ends, {"e": "completed", "id": "spared"}], {})

    assert (found["false_failed"], found["spared"], found["lost"]) == (1, 1, 0)
    assert found["reasons"] == {"stalled": 1}


def test_a_second_run_is_explained_by_a_job_taken_back(tmp_path: Path) -> None:
    """Two jobs ran twice; one was taken back between."""
    lines = [*added("twice"), *ran("twice"), *ran("twice", 2), {"e": "completed", "id": "twice"}]
    back = [*added("back"), *ran("back"), {"e": "taken back", "id": "back"}, *ran("back", 2)]
    found = figures(tmp_path, [*lines, *back, {"e": "completed", "id": "back"}], {})

    assert (found["duplicates"], found["explained"]) == (2, 1)
    assert list(found["trails"]) == ["twice"]


def test_a_job_that_ends_twice_is_seen(tmp_path: Path) -> None:
    """One `completed` and one `failed` are one too many."""
    lines = [*added("a"), *ran("a"), {"e": "completed", "id": "a"}, {"e": "completed", "id": "a"}]

    assert figures(tmp_path, lines, {})["ended_twice"] == 1


def test_a_job_that_completes_without_a_good_run_is_seen(tmp_path: Path) -> None:
    """Its only run has failed, and yet it is said to have completed."""
    failed = {"e": "end", "id": "a", "run": 1, "pid": 1, "failed": True}
    lines = [*added("a"), ran("a")[0], failed, {"e": "completed", "id": "a"}]

    assert figures(tmp_path, lines, {})["completed_unrun"] == 1
    assert figures(tmp_path, [*lines, *ran("a", 2)], {})["completed_unrun"] == 0


def test_each_sample_has_the_lag_since_the_last() -> None:
    """The worst but for one in a hundred; none where nothing was measured."""
    lags = [(1.0, 0.001), (2.0, 0.030), (3.0, 0.002), (9.0, 0.005)]

    assert lags_by_sample(lags, [2.5, 5.0, 7.0, 10.0]) == [30.0, 2.0, 0.0, 5.0]


def test_what_has_grown_is_named() -> None:
    """The line that holds the memory is the first."""
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        held = [bytes(1000) for _ in range(1000)]
        lines = grown(before)
    finally:
        tracemalloc.stop()

    assert len(held) == 1000
    assert lines[0].startswith("chaos/test_soak.py:")
    assert "+1000 pieces" in lines[0] or "+1001 pieces" in lines[0]


async def test_opening_and_closing_leaves_nothing(tmp_path: Path) -> None:
    """After cycles of a queue, a worker and a reader of events: the same files, threads and memory, no task."""
    try:
        server = EmbeddedServer(tmp_path, "none")
        server.start()
    except ConfigurationError as error:
        pytest.skip(str(error))
    try:
        left = await cycles(server, 40)
    finally:
        server.stop()

    assert broken(left) == []
