"""Programs about the life of single jobs: adding, fetching, finishing, steering, stalling, writing, reading."""

from __future__ import annotations

from typing import Any

from .bench import START_MS, Step
from .steps import (
    EXPONENTIAL,
    FIXED,
    INTERVAL_PASSES,
    MARKER_IS_POPPED,
    OLD_VERSION_PAUSES,
    PAUSE,
    RESUME,
    RICH,
    add,
    bulk,
    complete,
    delay,
    done,
    extend,
    fail,
    failed,
    finish_many,
    give_back,
    job,
    jobs,
    limit_concurrency,
    lock_runs_out,
    log,
    logs,
    progress,
    promote,
    retry,
    stalled,
    state,
    take,
    take_many,
    time_passes,
    update_data,
)

__all__ = ["PROGRAMS"]

Json = Any

ANY: list[Json] = [[], 0, "", "text", False, 1.5, "\u2028 \U0001f402"]
KEEPING: list[Json] = [True, False, 0, 3, {"count": 3}, {"age": 60}, {"age": 60, "count": 3, "limit": 10}]

ADDING: dict[str, list[Step]] = {
    "standard": [add(), add("b", {"x": 1}), add("c", RICH)],
    "any data": [add(data=data) for data in ANY],
    "lifo": [add(), add(lifo=True), add(), add(lifo=True), add(lifo=False)],
    "delayed": [add(delay=5000), add(delay=1), add(delay=60_000), add()],
    "delayed by nothing": [add(delay=0)],
    "delayed, due in the same millisecond": [add(delay=500), add(delay=500), add(delay=501), add(delay=500)],
    "delayed after a timestamp": [add(delay=500, timestamp=START_MS - 5000), add(delay=9, timestamp=START_MS + 9)],
    "a timestamp": [add(timestamp=START_MS - 100_000)],
    "prioritized": [add(priority=5), add(priority=5), add(priority=1), add(priority=2_097_151), add(priority=0)],
    "prioritized and lifo": [add(priority=5), add(priority=5, lifo=True)],
    "delayed and prioritized": [add(delay=500, priority=3), add(priority=3)],
    "delayed and lifo": [add(delay=500, lifo=True), time_passes(500), add(), take(), take()],
    "custom ids": [add(jobId="order-7"), add(), add(jobId="öre 7/å"), add(jobId="a:b:c"), add(jobId="01"), add()],
    "a duplicate id": [add("a", {"x": 1}, jobId="same"), add("b", {"x": 2}, jobId="same", priority=4), add()],
    "a duplicate of a delayed job": [add(jobId="same", delay=50), add(jobId="same"), add(jobId="same", delay=9)],
    "a duplicate of an active job": [add(jobId="same"), take(), add(jobId="same")],
    "a duplicate of a finished job": [add(jobId="same"), take(), complete("same"), add(jobId="same")],
    "an id that was removed": [
        add(jobId="same", removeOnComplete=True), take(), complete("same"), add(jobId="same")
    ],
    "all options": [
        add(
            attempts=3, backoff=EXPONENTIAL, keepLogs=7, stackTraceLimit=2, sizeLimit=5000, lifo=True,
            removeOnComplete={"count": 5, "age": 60}, removeOnFail=True, jobId="all",
        )
    ],
    "a bare backoff": [add(attempts=3, backoff=250)],
    "retention of every form": [add(removeOnComplete=value, removeOnFail=value) for value in KEEPING],
    "bulk": [bulk({}, {"lifo": True}, {"delay": 500}, {"priority": 2}, {"jobId": "x"}, {"jobId": "x"}, {})],
    "bulk of one kind": [bulk(*[{}] * 30), bulk(*[{"priority": 3}] * 30), bulk(*[{"delay": 5}] * 30)],
    "bulk into a queue that holds some": [add(), add(lifo=True), bulk({}, {"lifo": True}, {}, {"lifo": True})],
    "bulk of duplicates": [add(jobId="x"), bulk({"jobId": "x"}, {"jobId": "y"}, {"jobId": "x"}, {"jobId": "y"})],
    "while paused": [PAUSE, add(), add(priority=1), add(delay=5), add(lifo=True), bulk({}, {"delay": 9})],
    "while as many run as may": [
        add(), limit_concurrency(1), take(), MARKER_IS_POPPED, add(), add(priority=1), add(delay=9)
    ],
}  # fmt: skip

FETCHING: dict[str, list[Step]] = {
    "nothing": [take(), take_many(5)],
    "in order": [add("a"), add("b"), add("c", lifo=True), add("d", priority=9), *[take()] * 5],
    "priorities": [*[add(priority=p) for p in (3, 1, 2, 1, 3)], *[take()] * 6],
    "a named worker": [add(), take(worker="named")],
    "other tokens": [add(), add(), take("t1"), take("t2")],
    "equal priorities after the queue ran empty": [
        add(priority=1), add(priority=1), take(), take(), take(), add(priority=1)
    ],
    "wait before priority": [add(priority=1), add(), take(), add(), take(), take()],
    "what is due": [
        add(delay=10), add(delay=20, priority=5), add(delay=30), time_passes(10), take(), time_passes(9), take(),
        time_passes(1), take(), time_passes(100), take(), take(),
    ],
    "due within the same millisecond": [
        add("a", delay=10), add("b", delay=10), add("c", delay=9), time_passes(10), take(), take(), take()
    ],
    "due one ms too early": [add(delay=10), time_passes(9), take(), time_passes(1), take()],
    "while paused": [add(), PAUSE, take(), add(delay=5), time_passes(5), take(), RESUME, take(), take()],
    "while as many run as may": [
        *[add()] * 3, limit_concurrency(2), take(), take(), take(), complete("1"), take(), take_many(3)
    ],
    "a due job while as many run as may": [
        add(), add(delay=5), limit_concurrency(1), take(), time_passes(5), take(), complete("1", fetch=True)
    ],
    "many": [bulk(*[{}] * 10), take_many(4), take_many(10), take_many(1)],
    "many of every kind": [
        bulk({}, {"priority": 2}, {"lifo": True}, {"delay": 5}, {"priority": 1}, {"delay": 5, "priority": 1}),
        time_passes(5), take_many(3), take_many(9), add(delay=5), take_many(3),
    ],
    "many with fewer slots": [*[add()] * 6, limit_concurrency(4), take_many(3), take_many(3)],
    "as many as are promoted at once": [
        bulk(*[{"delay": 5}] * 250), time_passes(5), take(), take_many(3), take_many(250)
    ],
    "a second attempt": [add(attempts=2), take("t1"), fail("1"), take("t2", worker="named")],
}  # fmt: skip

FINISHING: dict[str, list[Step]] = {
    "completed": [add(), take(), complete("1", value={"ok": True})],
    "completed with any value": [
        step
        for number, value in enumerate([None, 0, "", "text", [], {}, False, RICH], 1)
        for step in (add(), take(), complete(str(number), value=value))
    ],
    "completed and the next": [add(), add(), take(), complete("1", fetch=True), complete("2", fetch=True)],
    "completed and the next of a named worker": [
        *[add()] * 4, take(worker="named"), *[complete(n, fetch=True, worker="named") for n in "1234"]
    ],
    "completed while others run": [add(), add(), take("t1"), take("t2"), complete("1"), complete("2", "t2")],
    "completed while others wait": [add(), add(), take(), complete("1")],
    "completed while something is delayed": [add(), add(delay=50), take(), complete("1")],
    "completed and nothing but a delayed one": [add(), add(delay=50), take(), complete("1", fetch=True)],
    "completed and a due one": [add(), add(delay=50), take(), time_passes(50), complete("1", fetch=True)],
    "completed while paused": [add(), add(), take(), PAUSE, complete("1", fetch=True), RESUME],
    "completed the last while paused": [add(), take(), PAUSE, complete("1", fetch=True)],
    "completed the last while paused, no fetch": [add(), take(), PAUSE, complete("1")],
    "completed a prioritized one": [add(priority=3), take(), complete("1", fetch=True)],
    "failed": [add(), take(), fail("1", error="no luck: å/\\\"")],
    "failed with attempts of one": [add(attempts=1), take(), fail("1")],
    "failed after a retry at once": [add(attempts=2), take(), fail("1", error="one"), take(), fail("1", error="two")],
    "completed after a retry at once": [add(attempts=3), add(), take(), fail("1"), take(), take(), complete("1")],
    "retry at once, lifo": [add(attempts=2, lifo=True), add(), take(), fail("1"), take(), take()],
    "retry at once, prioritized": [add(attempts=2, priority=4), add(priority=4), take(), fail("1"), take(), take()],
    "retry at once while paused": [add(attempts=2), take(), PAUSE, fail("1")],
    "retry at once with others due": [
        add(attempts=2), add(delay=5), add(delay=5, priority=1), take(), time_passes(9), fail("1"), take_many(9)
    ],
    "retry later, fixed": [
        add(attempts=3, backoff=FIXED), take(), fail("1"), take(), time_passes(1000), take(), fail("1"),
        time_passes(1000), take(), fail("1", error="last"),
    ],
    "retry later, exponential": [
        add(attempts=5, backoff=EXPONENTIAL),
        *[step for wait in (1000, 2000, 4000, 8000) for step in (take(), fail("1"), time_passes(wait))],
        take(), fail("1"),
    ],
    "retry later, bare": [add(attempts=2, backoff=250), take(), fail("1"), time_passes(250), take(), complete("1")],
    "retry later, prioritized": [
        add(attempts=2, backoff=FIXED, priority=7), take(), fail("1"), time_passes(1000), take(), complete("1")
    ],
    "retry later among other delayed ones": [
        add(attempts=2, backoff=FIXED), add(delay=500), take(), fail("1"), add(delay=2000), add(delay=1000)
    ],
    "retry later while paused": [add(attempts=2, backoff=FIXED), take(), PAUSE, fail("1")],
    "unrecoverable": [add(attempts=5, backoff=FIXED), take(), fail("1", unrecoverable=True)],
    "unrecoverable in the last attempt": [add(attempts=1), take(), fail("1", unrecoverable=True)],
    "traces within their limit": [
        add(attempts=4, stackTraceLimit=2),
        *[step for n in range(4) for step in (take(), fail("1", error=f"e{n}"))],
    ],
    "no traces": [add(attempts=2, stackTraceLimit=0), take(), fail("1"), take(), fail("1")],
    "kept by count": [
        *[add(removeOnComplete=2)] * 4, *[step for n in "1234" for step in (take(), complete(n))]
    ],
    "not kept": [*[add(removeOnComplete=True)] * 2, take(), complete("1", fetch=True), complete("2")],
    "not kept, with logs": [add(removeOnComplete=True), take(), log("1", "row"), complete("1")],
    "not kept when failed": [add(removeOnFail=True), take(), fail("1")],
    "kept by age": [
        add(), add(), add(removeOnComplete={"age": 10}), take(), complete("1"), time_passes(5000), take(),
        complete("2"), time_passes(5001), take(), complete("3"),
    ],
    "kept by age of zero": [add(removeOnComplete={"age": 0}), take(), complete("1")],
    "kept by age, a few at a time": [
        *[add()] * 5, *[step for n in "12345" for step in (take(), complete(n), time_passes(10))],
        time_passes(60_000), add(removeOnComplete={"age": 10, "limit": 2}), take(), complete("6"),
    ],
    "kept by age and count": [
        *[add()] * 3, *[step for n in "123" for step in (take(), complete(n), time_passes(4000))],
        add(removeOnComplete={"age": 10, "count": 2}), take(), complete("4"),
    ],
    "kept by count when failed": [
        *[add(removeOnFail=1, removeOnComplete=True)] * 3, *[step for n in "123" for step in (take(), fail(n))]
    ],
    "kept by the worker's rule": [
        *[add()] * 4, *[step for n in "1234" for step in (take(worker="named"), complete(n, worker="named"))]
    ],
    "kept by the worker's rule when failed": [
        *[step for n in "123" for step in (
            add(), take(worker="named"), fail(n, worker="named"), time_passes(3000)
        )]
    ],
    "the job's rule before the worker's": [
        *[add(removeOnComplete=False)] * 4,
        *[step for n in "1234" for step in (take(worker="named"), complete(n, worker="named"))],
    ],
    "evicted with its logs": [
        add(), take(), log("1", "row"), complete("1"), add(removeOnComplete=1), take(), complete("2")
    ],
    "a foreign token": [add(), take(), complete("1", "t2"), fail("1", "t2"), complete("1")],
    "no lock": [add(), take(), lock_runs_out("1"), complete("1"), fail("1")],
    "twice": [add(), take(), complete("1"), complete("1"), fail("1")],
    "no such job": [complete("nobody"), fail("nobody")],
    "not active": [add(), complete("1"), fail("1")],
    "many": [*[add()] * 5, take_many(4), finish_many(0, done("1"), done("2")), finish_many(0, done("3"), done("4"))],
    "many and the next": [
        *[add()] * 8, take_many(4), finish_many(2, done("1"), failed("2"), done("3", value=3)),
        finish_many(9, done("4")),
    ],
    "many, the last of all": [*[add()] * 3, take_many(3), finish_many(3, done("1"), done("2"), failed("3"))],
    "many with a refusal among them": [
        *[add()] * 4, take_many(3), finish_many(2, done("1"), done("2", "t9"), done("1"), done("3"))
    ],
    "many with retention": [
        *[add(removeOnComplete=2)] * 6, take_many(6), finish_many(1, *[done(n) for n in "123456"])
    ],
    "many of a named worker": [
        *[add()] * 6, take_many(5, worker="named"),
        finish_many(1, *[done(n) for n in "123"], failed("4"), done("5"), worker="named"),
    ],
    "many, with a delayed one left": [
        *[add()] * 2, add(delay=50), take_many(2), finish_many(2, done("1"), done("2")), time_passes(50), take()
    ],
    "many while paused": [*[add()] * 3, take_many(2), PAUSE, finish_many(2, done("1"), done("2"))],
    "many with due ones": [
        *[add()] * 2, add(delay=5), add(delay=5, priority=1), take_many(2), time_passes(5),
        finish_many(2, done("1"), done("2")),
    ],
}  # fmt: skip

STEERING: dict[str, list[Step]] = {
    "a step delays itself": [
        add(), take(), delay("1", START_MS + 5000), take(), time_passes(5000), take(), complete("1")
    ],
    "a step delays itself into the past": [add(), take(), delay("1", START_MS - 5000), take()],
    "a step delays itself, prioritized": [
        add(priority=2), take(), delay("1", START_MS + 50), time_passes(50), take()
    ],
    "a step delays itself without its lock": [
        add(), take(), delay("1", START_MS + 5, "t2"), lock_runs_out("1"), delay("1", START_MS + 5)
    ],
    "a step delays itself, not active": [add(), delay("1", START_MS + 5), delay("nobody", START_MS + 5)],
    "started too often": [
        add(attempts=9, backoff=FIXED),
        *[
            step
            for _ in range(3)
            for step in (take(worker="named"), fail("1", worker="named"), time_passes(1000))
        ],
    ],
    "given back": [add(), add(), take(), give_back("1"), take()],
    "given back, prioritized": [*[add(priority=2)] * 3, take(), give_back("1"), take()],
    "given back while paused": [add(), take(), PAUSE, give_back("1")],
    "given back, lifo": [add(lifo=True), add(lifo=True), take(), give_back("2")],
    "given back without its lock": [
        add(), take(), give_back("1", "t2"), lock_runs_out("1"), give_back("1"), give_back("nobody")
    ],
    "locks extended": [
        add(), add(), take("t1"), take("t2"), extend(("1", "t1")), extend(("1", "t2"), ("2", "t2"), ("9", "t1"))
    ],
    "a lock that is gone is not made anew": [add(), take(), lock_runs_out("1"), extend(("1", "t1"))],
    "paused twice": [add(), PAUSE, PAUSE, RESUME, RESUME],
    "resumed with nothing": [PAUSE, RESUME],
    "resumed with only delayed ones": [add(delay=50), PAUSE, RESUME],
    "resumed with only prioritized ones": [add(priority=1), PAUSE, RESUME],
    "resumed after an old version paused": [*[add()] * 3, OLD_VERSION_PAUSES, state("1"), RESUME, take()],
    "resumed with old and new ones": [*[add()] * 3, OLD_VERSION_PAUSES, PAUSE, *[add()] * 2, RESUME, *[take()] * 5],
    "promoted": [add(delay=500), add(), promote("1"), take(), take()],
    "promoted, prioritized": [add(delay=500, priority=3), add(priority=3), promote("1")],
    "promoted, lifo": [add(), add(delay=500, lifo=True), promote("2")],
    "promoted while paused": [add(delay=500), PAUSE, promote("1")],
    "promoted, not delayed": [add(), promote("1"), promote("nobody"), take(), promote("1")],
    "promoted a retry": [add(attempts=2, backoff=FIXED), take(), fail("1"), promote("1"), take()],
    "retried a failed one": [add(), take(), fail("1"), retry("1"), take(), complete("1")],
    "retried a completed one": [add(), take(), complete("1", value=1), retry("1", "completed"), take()],
    "retried with resets": [
        add(attempts=2), take(), fail("1"), take(), fail("1"),
        retry("1", reset_made=True, reset_started=True), take(), fail("1"), take(), fail("1"),
    ],
    "retried without resets gets one more": [
        add(attempts=2), take(), fail("1"), take(), fail("1"), retry("1"), take(), fail("1")
    ],
    "retried, prioritized": [add(priority=6), add(priority=6), take(), fail("1"), retry("1")],
    "retried, lifo": [add(lifo=True), add(), take(), fail("1"), retry("1")],
    "retried while paused": [add(), take(), fail("1"), PAUSE, retry("1")],
    "retried from the wrong state": [
        add(), retry("1"), take(), retry("1"), complete("1"), retry("1"), retry("1", "completed"), retry("nobody")
    ],
}  # fmt: skip

STALLING: dict[str, list[Step]] = {
    "nothing": [stalled(), stalled(), INTERVAL_PASSES, stalled()],
    "with its lock it stays": [add(), take(), stalled(), INTERVAL_PASSES, stalled()],
    "seen once it stays": [add(), take(), lock_runs_out("1"), stalled()],
    "seen twice it goes back": [add(), take(), lock_runs_out("1"), stalled(), INTERVAL_PASSES, stalled(), take("t2")],
    "checked too soon": [add(), take(), lock_runs_out("1"), stalled(), stalled()],
    "extended in between": [
        add(), take(), stalled(), extend(("1", "t1")), lock_runs_out("1"), INTERVAL_PASSES, stalled()
    ],
    "finished in between": [add(), take(), stalled(), complete("1"), INTERVAL_PASSES, stalled()],
    "goes before those that wait": [
        add(), take(), add(), lock_runs_out("1"), stalled(), INTERVAL_PASSES, stalled(), take("t2")
    ],
    "loses its priority": [
        add(priority=3), take(), add(priority=3), lock_runs_out("1"), stalled(), INTERVAL_PASSES, stalled()
    ],
    "while paused": [add(), take(), PAUSE, lock_runs_out("1"), stalled(), INTERVAL_PASSES, stalled()],
    "too often": [
        add(attempts=3), *[
            step for _ in range(2)
            for step in (take(), lock_runs_out("1"), stalled(), INTERVAL_PASSES, stalled(), INTERVAL_PASSES)
        ],
        take(), fail("1", error="job stalled more than allowable limit", unrecoverable=True),
    ],
    "may not even once": [
        add(), take(worker="named"), lock_runs_out("1"), stalled("named"), INTERVAL_PASSES, stalled("named"),
        take(worker="named"), fail("1", unrecoverable=True, worker="named"),
    ],
    "fails in spite of the deferred failure being removed": [
        add(removeOnFail=True), take(), lock_runs_out("1"), stalled("named"), INTERVAL_PASSES, stalled("named"),
        take(), fail("1", unrecoverable=True),
    ],
    "a few of many": [
        *[add()] * 4, take_many(4), lock_runs_out("2"), lock_runs_out("4"), stalled(), INTERVAL_PASSES, stalled()
    ],
}  # fmt: skip

WRITING: dict[str, list[Step]] = {
    "progress": [
        add(), progress("1", 50), take(), progress("1", {"a": [1, None]}), progress("1", "half"), progress("1", 0)
    ],
    "progress of nobody": [progress("nobody", 1)],
    "progress of a finished job": [add(), take(), complete("1"), progress("1", 100)],
    "logs": [add(), log("1", "one"), take(), log("1", "two å"), log("1", "")],
    "logs within their limit": [add(keepLogs=2), *[log("1", str(n)) for n in range(4)]],
    "logs of nobody": [log("nobody", "row")],
    "data": [
        add(data={"a": 1}), update_data("1", {"b": [2]}), take(), update_data("1", None), update_data("nobody", 1)
    ],
    "states": [
        add(), add(delay=5), add(priority=1), *[state(n) for n in "1239"], take(), state("1"), complete("1"),
        state("1"), take(), fail("3"), state("3"), PAUSE, state("2"),
    ],
}  # fmt: skip

ONE_OF_EACH: list[Step] = [
    *[add()] * 3, *[add(delay=5)] * 3, *[add(priority=2)] * 3, add(removeOnFail=False, lifo=True), take("t1"),
    fail("10"), take("t2"), complete("1", "t2", value={"ok": True}), take("t3"),
]  # fmt: skip
"""Ten jobs, at least one in each state."""
STATES = ("active", "completed", "delayed", "failed", "prioritized", "waiting")
RANGES = [(0, -1), (0, 0), (1, 1), (1, -1), (0, -2), (-1, -1), (-2, -1), (5, 9), (2, 1)]

READING: dict[str, list[Step]] = {
    "counts of nothing": [("counts", {})],
    "counts": [*ONE_OF_EACH, ("counts", {}), PAUSE, ("counts", {})],
    "jobs of nothing": [jobs(*STATES)],
    "jobs of each state": [*ONE_OF_EACH, *[jobs(s, ascending=up) for s in STATES for up in (True, False)]],
    "jobs of all states": [*ONE_OF_EACH, jobs(*STATES), jobs(*STATES, ascending=True), jobs("waiting", "waiting")],
    "a part of a list": [
        *[add()] * 5, *[jobs("waiting", start=a, end=b, ascending=up) for a, b in RANGES for up in (True, False)]
    ],
    "a part of a sorted set": [
        *[add(delay=5)] * 5, *[jobs("delayed", start=a, end=b, ascending=up) for a, b in RANGES for up in (True, False)]
    ],
    "logs of nothing": [add(), logs("1"), logs("nobody")],
    "a part of the logs": [
        add(), *[log("1", str(n)) for n in range(5)],
        *[logs("1", a, b, ascending=up) for a, b in RANGES for up in (True, False)],
    ],
    "nobody": [job("nobody"), state("nobody")],
    "a job in each state": [*ONE_OF_EACH, *[job(str(n)) for n in range(1, 11)]],
    "a job through its life": [
        add("a", {"x": 1}, attempts=3, backoff=EXPONENTIAL, priority=4), job("1"), take(worker="named"), job("1"),
        progress("1", [1]), job("1"), fail("1"), job("1"), time_passes(1000), take(), job("1"), fail("1"),
        promote("1"), job("1"), take(), complete("1", value="at last"), job("1"), retry("1", "completed"), job("1"),
    ],
    "is paused": [("is_paused", {}), PAUSE, ("is_paused", {}), RESUME, ("is_paused", {})],
}  # fmt: skip

PROGRAMS = {
    "adding": ADDING,
    "fetching": FETCHING,
    "finishing": FINISHING,
    "steering": STEERING,
    "stalling": STALLING,
    "writing": WRITING,
    "reading": READING,
}
