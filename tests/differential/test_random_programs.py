"""Programs that Hypothesis makes up, and shortens when one of them tells the clients apart.

`make test` runs the same few each time. `TORIL_PROGRAMS=5000 pytest tests/differential/test_random_programs.py` looks
further, at others on each run. A program that failed once belongs into `test_written_programs.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop.node import Node

from .bench import ITS, START_MS, Bench, Pick, PickEnds, Step, open_bench

Json = Any
PROGRAMS = int(os.environ.get("TORIL_PROGRAMS", "0"))

RETENTION = st.sampled_from(
    [
        True,
        False,
        0,
        1,
        2,
        {"count": 1},
        {"age": 1},
        {"age": 0},
        {"age": 2, "count": 1},
        {"age": 1, "limit": 1},
    ]
)
BACKOFF = st.sampled_from(
    [5, {"type": "fixed", "delay": 5}, {"type": "fixed", "delay": 0}, {"type": "exponential", "delay": 400}]
)
OPTIONS: st.SearchStrategy[dict[str, Json]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "delay": st.sampled_from([0, 1, 5, 1000]),
            "priority": st.integers(0, 3),
            "lifo": st.booleans(),
            "attempts": st.integers(0, 3),
            "backoff": BACKOFF,
            "jobId": st.sampled_from(["x", "y"]),
            "removeOnComplete": RETENTION,
            "removeOnFail": RETENTION,
            "keepLogs": st.integers(1, 3),
            "stackTraceLimit": st.integers(0, 2),
            "timestamp": st.sampled_from([START_MS - 5, START_MS + 5]),
        },
    ),
)
DATA = st.sampled_from([{}, {"a": [1, None]}, None, "text", 0])
JOB = st.builds(lambda data, options: ("job", data, options), DATA, OPTIONS)
WORKER = st.sampled_from(["plain", "plain", "named"])
TOKEN = st.sampled_from(["t1", "t2"])
INDEX = st.integers(0, 4)
HELD = st.sampled_from([ITS] * 6 + ["t1", "foreign"])
HOW = st.sampled_from(["done", "done", "failed"])


def picked(*keys: str) -> st.SearchStrategy[Pick]:
    return st.builds(Pick, st.sampled_from(keys), INDEX)


def step(move: str, /, **args: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.fixed_dictionaries(args).map(lambda drawn: (move, drawn))


ACTIVE = picked("active", "active", "active", "active", "wait", "delayed", "completed", "failed")
ANY = picked("active", "wait", "delayed", "prioritized", "completed", "failed", "nowhere")
STEPS: st.SearchStrategy[Step] = st.one_of(
    step("add", name=st.just("job"), data=DATA, options=OPTIONS),
    step("add_bulk", jobs=st.lists(JOB, max_size=5)),
    step("take", token=TOKEN, worker=WORKER),
    step("take_many", token=TOKEN, want=st.integers(1, 5), worker=WORKER),
    step("complete", job=ACTIVE, token=HELD, value=DATA, fetch=st.booleans(), worker=WORKER),
    step("fail", job=ACTIVE, token=HELD, error=st.just("boom"), unrecoverable=st.booleans(), worker=WORKER),
    step(
        "finish_many",
        ends=st.builds(PickEnds, st.lists(HOW, min_size=1, max_size=4).map(tuple), st.booleans()),
        want=st.integers(0, 4),
        worker=WORKER,
    ),
    step("delay", job=ACTIVE, token=HELD, until=st.sampled_from([START_MS, START_MS + 1000])),
    step("give_back", job=ACTIVE, token=HELD),
    st.builds(
        lambda jobs, tokens: ("extend_locks", {"jobs": jobs, "tokens": tokens}),
        st.lists(ACTIVE, min_size=2, max_size=2),
        st.lists(TOKEN, min_size=2, max_size=2),
    ),
    step("stalled", worker=WORKER),
    step("promote", job=picked("delayed", "delayed", "wait", "failed")),
    step(
        "retry",
        job=picked("failed", "completed", "wait"),
        state=st.sampled_from(["failed", "completed"]),
        reset_made=st.booleans(),
        reset_started=st.booleans(),
    ),
    step("progress", job=ANY, value=DATA),
    step("log", job=ANY, row=st.just("row")),
    step("update_data", job=ANY, data=DATA),
    step("job", job=ANY),
    st.just(("counts", {})),
    step(
        "jobs",
        states=st.lists(
            st.sampled_from(["active", "waiting", "delayed", "prioritized", "failed"]), max_size=2
        ),
        start=st.integers(-2, 3),
        end=st.integers(-2, 3),
        ascending=st.booleans(),
    ),
    step("pause"),
    step("resume"),
    step("time_passes", ms=st.sampled_from([1, 5, 1000, 3000])),
    step("lock_runs_out", job=ACTIVE),
    step("interval_passes"),
    step("limit_concurrency", most=st.integers(1, 4)),
    step("old_version_pauses"),
    step("marker_is_popped"),
)

# Lists of a drawn length: left to itself Hypothesis makes them too short for a job's whole life.
PROGRAM = st.integers(1, 40).flatmap(lambda length: st.lists(STEPS, min_size=length, max_size=length))

Run = Callable[[list[Step]], None]


@pytest.fixture
def run(server_url: str, turned_node: Node, prefix: str) -> Iterator[Run]:
    """Runs programs on one bench, one after another; each begins with no keys."""
    with asyncio.Runner() as runner:
        opening = open_bench(server_url, turned_node, prefix)
        bench: Bench = runner.run(opening.__aenter__())
        programs = 0

        def run(program: list[Step]) -> None:
            nonlocal programs
            programs += 1
            runner.run(bench.run(program))

        try:
            yield run
        finally:
            runner.run(opening.__aexit__(None, None, None))
            print(f"{programs} programs, {bench.steps} steps")


@given(program=PROGRAM)
@settings(
    max_examples=PROGRAMS or 150,
    derandomize=not PROGRAMS,
    deadline=None,
    database=None,
    # The bench is one for all programs, on purpose: it is emptied before each.
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
def test_no_program_tells_the_clients_apart(run: Run, program: list[Step]) -> None:
    """After each step of any program both clients have given the same answer and hold the same keys."""
    run(program)
