"""Job schedulers on both clients: written programs, and random ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop.node import Node

from . import scheduling
from .bench import ITS, START_MS, Bench, Pick, Step, open_bench

assert scheduling.SCHEDULING, "its moves are in the table"

Json = Any
PROGRAMS = int(os.environ.get("TORIL_PROGRAMS", "0"))
MINUTE = 60_000


def upsert(id: str = "s", template: dict[str, Json] | None = None, **repeat: Json) -> Step:
    return "upsert_scheduler", {"id": id, "repeat": repeat, "template": template or {}}


def cron(pattern: str, id: str = "s", template: dict[str, Json] | None = None, **repeat: Json) -> Step:
    return upsert(id, template, pattern=pattern, **{"tz": "UTC", **repeat})


def start(token: str = "t1") -> Step:
    return "start", {"token": token}


def done(job: str | Pick, token: str = ITS) -> Step:
    return "complete", {"job": job, "token": token, "value": None, "fetch": False}


def failed(job: str | Pick, token: str = ITS) -> Step:
    return "fail", {"job": job, "token": token, "error": "boom"}


def later(ms: int) -> Step:
    return "time_passes", {"ms": ms}


def remove(id: str = "s") -> Step:
    return "remove_scheduler", {"id": id}


RUNNING = Pick(("active",))
GET: Step = ("scheduler", {"id": "s"})
LIST: Step = ("schedulers", {"start": 0, "end": -1, "ascending": False})
RICH: dict[str, Json] = {
    "name": "ping",
    "data": {"a": [1, "å/"]},
    "opts": {
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": 500},
        "priority": 4,
        "removeOnComplete": {"count": 2},
        "removeOnFail": 5,
        "keepLogs": 3,
        "stackTraceLimit": 1,
    },
}

WRITTEN: dict[str, list[Step]] = {
    "an interval": [upsert(every=MINUTE), GET, start(), GET, done(RUNNING), later(MINUTE), start(), LIST],
    "an interval with an offset": [
        upsert(every=MINUTE, offset=5000), GET, later(MINUTE), start(), later(MINUTE), start(), GET,
    ],
    "an interval with a start": [upsert(every=MINUTE, startDate=START_MS + 90_000), later(90_000), start(), GET],
    "an interval with a start in the past": [upsert(every=MINUTE, startDate=START_MS - 90_500), start(), GET],
    "an interval with a start and an offset": [
        upsert(every=MINUTE, startDate=START_MS + 90_000, offset=7000), later(90_000), start(), GET,
    ],
    "an interval with everything": [upsert(template=RICH, every=MINUTE, limit=3), GET, start(), done(RUNNING), GET],
    "an odd interval": [upsert(every=777), start(), later(778), start(), later(10_000), start(), GET],
    "an interval whose runs are missed": [upsert(every=MINUTE), later(5 * MINUTE + 30_000), start(), GET, start()],
    "an interval that is exactly due": [upsert(every=MINUTE), start(), later(2 * MINUTE), start(), GET],
    "a limited interval": [
        upsert(every=1000, limit=2), start(), done(RUNNING), later(1000), start(), done(RUNNING), later(1000),
        start(), GET, LIST,
    ],
    "an interval with an end": [
        upsert(every=1000, endDate=START_MS + 1500), start(), later(1000), start(), later(1000), start(), GET,
    ],
    "the same interval again": [
        upsert(every=MINUTE), start(), later(10_000), upsert(every=MINUTE), GET, upsert(template=RICH, every=MINUTE),
        GET, later(50_000), start(),
    ],
    "another interval": [
        upsert(every=MINUTE), start(), later(10_000), upsert(every=2 * MINUTE), GET, start(), later(2 * MINUTE),
        start(),
    ],
    "the same interval while its job waits": [upsert(every=MINUTE), upsert(every=MINUTE), start(), GET],
    "another interval while its job waits": [upsert(every=MINUTE), later(500), upsert(every=1000), start(), GET],
    "an interval while its job waits by priority": [
        upsert(template=RICH, every=MINUTE), upsert(template=RICH, every=MINUTE), start(), GET,
    ],
    "an interval while its first job runs": [
        upsert(every=MINUTE), start(), upsert(every=MINUTE), done(RUNNING), upsert(every=MINUTE), GET,
    ],
    "an offset that changes": [
        upsert(every=MINUTE, offset=5000), upsert(every=MINUTE, offset=9000), GET, upsert(every=MINUTE), GET,
    ],
    "cron": [cron("* * * * *"), GET, later(MINUTE), start(), GET, done(RUNNING), later(MINUTE), start(), LIST],
    "cron with seconds": [cron("*/7 * * * * *"), later(7000), start(), later(7000), start(), GET],
    "cron with a zone": [cron("0 3 * * *", tz="America/New_York"), GET],
    "cron with everything": [cron("*/2 * * * *", template=RICH, limit=5), GET, later(2 * MINUTE), start(), GET],
    "cron at once": [cron("0 0 1 1 *", immediately=True), GET, start(), GET, done(RUNNING)],
    "cron with a start": [cron("* * * * *", startDate=START_MS + 10 * MINUTE), GET],
    "cron with an end": [
        cron("* * * * *", endDate=START_MS + 2 * MINUTE), later(MINUTE), start(), later(MINUTE), start(),
        later(MINUTE), start(), GET,
    ],
    "cron that ends before it begins": [cron("0 0 1 1 *", endDate=START_MS + 5000), LIST],
    "cron whose runs are missed": [cron("* * * * *"), later(10 * MINUTE), start(), GET, start()],
    "limited cron": [cron("* * * * * *", limit=2), later(1000), start(), later(1000), start(), later(1000), start()],
    "the same cron again": [cron("* * * * *"), later(10), cron("* * * * *"), GET, later(MINUTE), start(), GET],
    "another cron": [cron("* * * * *"), cron("0 * * * *", template=RICH), GET, cron("* * * * * *"), GET],
    "another cron while its job runs": [
        cron("* * * * *"), later(MINUTE), start(), cron("0 * * * *"), GET, done(RUNNING), LIST,
    ],
    "cron at a time that it has a job for": [
        cron("0 0 1 1 *", immediately=True), start(), cron("0 0 1 1 *", immediately=True), GET,
    ],
    "cron, then an interval": [cron("0 * * * *"), upsert(every=MINUTE), GET, start(), cron("0 * * * *"), GET],
    "an interval with an offset, then cron": [upsert(every=MINUTE, offset=5000), cron("0 * * * *"), GET],
    "an upsert that leaves fields out": [
        cron("* * * * *", template=RICH, limit=4, endDate=START_MS + 900 * MINUTE), cron("* * * * *"), GET,
    ],
    "a run that fails and is tried again": [
        upsert(template={"opts": {"attempts": 2}}, every=MINUTE), start(), failed(RUNNING), start(), done(RUNNING), GET,
    ],
    "a run that stalls": [
        upsert(every=MINUTE), start(), ("stalled", {}), ("lock_runs_out", {"job": RUNNING}), ("interval_passes", {}),
        ("stalled", {}), start("t2"), GET,
    ],
    "two schedulers": [upsert("a", every=MINUTE), cron("* * * * *", "b"), LIST, start(), later(MINUTE), start(), LIST],
    "lists of schedulers": [
        upsert("a", every=MINUTE, offset=1), upsert("b", every=MINUTE, offset=2), upsert("c", every=MINUTE, offset=3),
        ("schedulers", {"start": 0, "end": 1, "ascending": False}),
        ("schedulers", {"start": 1, "end": 2, "ascending": True}),
    ],
    "removing": [upsert(every=MINUTE), start(), remove(), GET, remove(), done(RUNNING), LIST],
    "removing while its job waits": [upsert(every=MINUTE), remove(), start(), GET],
    "removing what is not there": [remove()],
    "removing its pending job": [cron("* * * * *"), ("remove_run", {"job": Pick(("delayed",))})],
    "removing, and making again": [
        upsert(every=MINUTE), start(), remove(), later(1000), upsert(every=MINUTE), GET, start(), GET,
    ],
    "promoting its job": [
        cron("0 * * * *"), ("promote", {"job": Pick(("delayed",))}), GET, start(), GET, done(RUNNING),
    ],
    "promoting its interval's job": [
        upsert(every=MINUTE, offset=9), ("promote", {"job": Pick(("delayed",))}), start(), GET,
    ],
    "an upsert between promotion and start": [
        cron("0 * * * *"), ("promote", {"job": Pick(("delayed",))}), cron("0 * * * *"), GET,
    ],
    "a paused queue": [("pause", {}), cron("* * * * *"), cron("* * * * *"), ("resume", {}), later(MINUTE), start()],
    "a queue with as many jobs as it may have": [
        ("limit_concurrency", {"most": 1}), upsert(every=1000), start(), later(1000), start(), done(RUNNING), start(),
    ],
    "lifo": [upsert(template={"opts": {"lifo": True}}, every=MINUTE), ("add", {"name": "x", "data": {}, "options": {}}),
             start(), start(), GET],
    "an id with colons": [upsert("a:b", every=MINUTE), start(), later(MINUTE), start()],
    "an id that JSON escapes": [upsert('q"\\/å', every=MINUTE), start(), later(MINUTE), start(), LIST],
    "draining": [upsert(every=MINUTE), start(), ("drain", {"delayed": True}), GET],
    "obliterating": [upsert(every=MINUTE), cron("* * * * *", "c"), ("pause", {}), ("obliterate", {"force": True})],
}  # fmt: skip


@pytest.mark.parametrize("program", WRITTEN.values(), ids=WRITTEN)
async def test_both_clients_leave_the_same(bench: Bench, program: list[Step]) -> None:
    """After each step both clients have given the same answer and hold the same keys."""
    await bench.run(program)


# --- programs that Hypothesis makes up ---

IDS = st.sampled_from(["a", "a", "b"])
TEMPLATES: st.SearchStrategy[dict[str, Json]] = st.sampled_from(
    [{}, {}, {"name": "ping"}, {"data": {"a": 1}}, RICH]
)
DATES: st.SearchStrategy[dict[str, Json]] = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 4),
        "startDate": st.sampled_from([START_MS - 1, START_MS + 2500, START_MS + 30_000]),
        "endDate": st.sampled_from([START_MS + 90_000, START_MS + 900_000]),
    },
)
INTERVALS = st.builds(
    lambda every, offset, dates: {"every": every, **offset, **dates},
    st.sampled_from([777, 1000, 1000, 5000, 60_000]),
    st.sampled_from([{}, {}, {"offset": 300}]),
    DATES,
)
PATTERNS = st.builds(
    lambda pattern, dates: {"pattern": pattern, "tz": "Europe/Stockholm", **dates},
    st.sampled_from(["* * * * * *", "*/5 * * * * *", "* * * * *", "*/3 * * * *", "0 4 * * *"]),
    DATES,
)


def step(move: str, /, **args: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.fixed_dictionaries(args).map(lambda drawn: (move, drawn))


PICKED = st.builds(
    Pick, st.sampled_from(["active", "active", "wait", "delayed", "completed"]), st.integers(0, 3)
)
STEPS: st.SearchStrategy[Step] = st.one_of(
    step("upsert_scheduler", id=IDS, repeat=INTERVALS, template=TEMPLATES),
    step("upsert_scheduler", id=IDS, repeat=PATTERNS, template=TEMPLATES),
    step("start", token=st.sampled_from(["t1", "t2"])),
    step("start", token=st.sampled_from(["t1", "t2"])),
    step("complete", job=PICKED, token=st.just(ITS), value=st.just(None), fetch=st.just(False)),
    step("fail", job=PICKED, token=st.just(ITS), error=st.just("boom")),
    step("give_back", job=PICKED, token=st.just(ITS)),
    step("promote", job=st.builds(Pick, st.just("delayed"), st.integers(0, 2))),
    step("retry", job=st.builds(Pick, st.just("failed"), st.integers(0, 2)), state=st.just("failed")),
    step("remove_scheduler", id=IDS),
    step("scheduler", id=IDS),
    step("lock_runs_out", job=PICKED),
    st.just(("interval_passes", {})),
    st.just(("stalled", {})),
    step("time_passes", ms=st.sampled_from([1, 1000, 1000, 2500, 60_000, 3_600_000])),
    step("time_passes", ms=st.sampled_from([777, 1000, 5000])),
)
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
    max_examples=PROGRAMS or 100,
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
