"""Programs about many jobs at once: changing, removing, limits, deduplication, flows."""

from __future__ import annotations

from typing import Any

from .bench import Step
from .steps import (
    FIXED,
    INTERVAL_PASSES,
    MARKER_IS_POPPED,
    OLD_VERSION_PAUSES,
    PAUSE,
    REMOVE_ORPHANS,
    RESUME,
    UNLIMIT,
    WINDOW_ENDS,
    add,
    at,
    bulk,
    change_delay,
    change_priority,
    children,
    clean,
    clear_logs,
    complete,
    cut_from_parent,
    dedup,
    delay,
    done,
    drain,
    fail,
    failed,
    finish_many,
    flow,
    free,
    free_own,
    give_back,
    limit,
    limit_concurrency,
    lock_runs_out,
    log,
    metrics,
    node,
    obliterate,
    owner,
    promote,
    promote_jobs,
    rate_limit,
    remove,
    remove_unprocessed_children,
    retry,
    retry_jobs,
    runs_out,
    stalled,
    state,
    take,
    take_many,
    time_passes,
    vanishes,
    wait_for_children,
)

__all__ = ["PROGRAMS"]

Json = Any

CHANGING: dict[str, list[Step]] = {
    "delay": [add(delay=500), change_delay("1", 90), change_delay("1", 0), change_delay("1", 7)],
    "delay among others": [add(delay=500), add(delay=90), change_delay("1", 90), time_passes(5), change_delay("2", 85)],
    "delay of one that is not delayed": [add(), change_delay("1", 90), change_delay("nobody", 90)],
    "delay while paused": [add(delay=500), PAUSE, change_delay("1", 5)],
    "priority of a waiting one": [
        add(), add(), change_priority("1", 3), change_priority("2", 0), change_priority("2", 0, lifo=True)
    ],
    "priority of a prioritized one": [
        *[add(priority=3)] * 3, change_priority("1", 3), change_priority("3", 3, lifo=True), change_priority("2", 1)
    ],
    "priority to none": [
        add(), add(priority=3), add(priority=3), change_priority("2", 0), change_priority("3", 0, lifo=True)
    ],
    "priority of a delayed one": [add(delay=5), change_priority("1", 4), time_passes(5), take()],
    "priority of an active one": [add(attempts=2), take(), change_priority("1", 4), fail("1")],
    "priority of a finished one": [add(), take(), complete("1"), change_priority("1", 4), retry("1", "completed")],
    "priority of nobody": [change_priority("nobody", 4)],
    "priority while paused": [add(), PAUSE, change_priority("1", 4)],
    "logs cleared": [add(), *[log("1", str(n)) for n in range(4)], clear_logs("1", 2), clear_logs("1")],
}  # fmt: skip

ONE_OF_EACH: list[Step] = [
    *[add()] * 3, *[add(delay=5)] * 2, *[add(priority=2)] * 2, add(lifo=True), take("t1"), log("8", "row"),
    fail("8"), take("t2"), complete("1", "t2"), take("t3"),
]  # fmt: skip
"""Eight jobs: 3 waits, 4 and 5 are delayed, 6 and 7 prioritized, 8 failed, 1 completed, 2 is active."""

REMOVING: dict[str, list[Step]] = {
    "one in each state": [*ONE_OF_EACH, *[remove(str(n)) for n in (3, 4, 6, 8, 1, 2)], lock_runs_out("2"), remove("2")],
    "one that is not there": [remove("nobody"), add(), remove("1"), remove("1")],
    "one left by an old version": [add(), OLD_VERSION_PAUSES, remove("1")],
    "drained": [*ONE_OF_EACH, drain()],
    "drained with the delayed": [*ONE_OF_EACH, drain(delayed=True)],
    "drained while paused": [add(), PAUSE, drain(), RESUME],
    "drained of nothing": [drain(delayed=True)],
    "drained of old ones": [add(), add(), OLD_VERSION_PAUSES, add(), drain()],
    "cleaned of each": [
        *ONE_OF_EACH, *[clean(s) for s in ("completed", "failed", "delayed", "prioritized", "waiting", "active")],
    ],
    "cleaned of an active one that has no lock": [add(), add(), take(), take(), lock_runs_out("1"), clean("active")],
    "cleaned by age": [
        *[step for n in "123" for step in (add(), take(), complete(n), time_passes(1000))],
        clean("completed", 1500), clean("completed", 500),
    ],
    "cleaned of the oldest waiting ones": [
        add(), time_passes(1000), add(), add(), clean("waiting", 500), add(priority=1), time_passes(900),
        add(priority=1), clean("prioritized", 500), clean("waiting", 500),
    ],
    "cleaned of some": [*[step for n in "12345" for step in (add(), take(), complete(n))], clean("completed", 0, 2)],
    "cleaned of some waiting ones": [*[add()] * 5, clean("waiting", 0, 2), clean("waiting", 0, 9)],
    "cleaned of delayed ones": [*[add(delay=n) for n in (9, 5, 7)], clean("delayed", 0, 2), clean("delayed", 100)],
    "cleaned of delayed retries": [
        add(attempts=3, backoff=FIXED), time_passes(100), take(), fail("1"), clean("delayed", 50), clean("delayed")
    ],
    "cleaned of nothing": [clean("completed"), clean("waiting")],
    "obliterated": [*ONE_OF_EACH, complete("2", "t3"), obliterate()],
    "obliterated although active": [*ONE_OF_EACH, obliterate(), obliterate(force=True)],
    "obliterated of nothing": [obliterate()],
    "obliterated of a stalled one": [add(), take(), stalled(), INTERVAL_PASSES, obliterate(force=True)],
    "retried in bulk": [
        *[add(priority=1)] * 2, add(), *[step for n in "312" for step in (take(), fail(n))], retry_jobs(), take()
    ],
    "retried some in bulk": [
        *[step for n in "123" for step in (add(), take(), complete(n), time_passes(5))], retry_jobs("completed", 2)
    ],
    "retried in bulk while paused": [add(), take(), fail("1"), PAUSE, retry_jobs()],
    "retried nothing in bulk": [retry_jobs(), add(), retry_jobs("completed")],
    "promoted in bulk": [add(delay=9), add(delay=5, priority=3), add(delay=7), promote_jobs(), take()],
    "promoted some in bulk": [*[add(delay=9)] * 3, promote_jobs(2)],
    "promoted nothing in bulk": [promote_jobs()],
    "no orphans": [*ONE_OF_EACH, REMOVE_ORPHANS],
    "an orphan": [*[add()] * 2, take(), log("1", "row"), drain(), complete("1"), REMOVE_ORPHANS],
    "many": [bulk(*[{}] * 1100), bulk(*[{"delay": 5}] * 1100), drain(delayed=True)],
    "many promoted": [bulk(*[{"delay": 5}] * 1100), promote_jobs(500)],
}  # fmt: skip

LIMITING: dict[str, list[Step]] = {
    "starts": [*[add()] * 4, limit(2), take(), take(), take(), WINDOW_ENDS, take(), UNLIMIT, take()],
    "starts in many": [*[add()] * 5, limit(2), take_many(4), WINDOW_ENDS, take_many(4), UNLIMIT, take_many(4)],
    "starts after finishing": [
        *[add()] * 3, limit(1), take(), complete("1", fetch=True), WINDOW_ENDS, finish_many(1, done("2")), take()
    ],
    "the last one": [add(), limit(1), take(), complete("1", fetch=True)],
    "by hand, without a rule": [*[add()] * 2, rate_limit(), take()],
    "by hand, with a rule": [*[add()] * 2, limit(5), rate_limit(), take(), WINDOW_ENDS, take()],
    "given back": [*[add()] * 2, limit(5), take(), rate_limit(), state("1"), take()],
    "due ones come in all the same": [add(), limit(1), take(), add(delay=5), time_passes(5), take()],
    "a deferred failure is free": [
        add(), add(), take(), lock_runs_out("1"), stalled("named"), INTERVAL_PASSES, stalled("named"),
        limit(1), take(), take(), take(),
    ],
    "as many as may run": [*[add()] * 4, limit_concurrency(2), take_many(4), finish_many(4, done("1"))],
    "as many as may run, one ends": [
        *[add()] * 4, limit_concurrency(2), take_many(4), complete("1"), add(), fail("2"), MARKER_IS_POPPED, add()
    ],
    "as many as may run, retried": [
        *[add(attempts=2)] * 2, limit_concurrency(1), take(), MARKER_IS_POPPED, fail("1"), take()
    ],
    "as many as may run, given back": [
        *[add()] * 2, limit_concurrency(1), take(), MARKER_IS_POPPED, give_back("1"), promote("1")
    ],
}  # fmt: skip

DEDUPLICATING: dict[str, list[Step]] = {
    "simple": [add(**dedup()), add(**dedup()), owner(), add(**dedup("e")), add(), owner("nobody")],
    "simple, until it completes": [
        add(**dedup()), take(), add(**dedup()), complete("1"), owner(), add(**dedup())
    ],
    "simple, until it fails for good": [
        add(attempts=2, **dedup()), take(), fail("1"), add(**dedup()), take(), fail("1"), add(**dedup())
    ],
    "simple, of a custom id": [add(jobId="x", **dedup()), add(jobId="y", **dedup()), add(jobId="x", **dedup())],
    "simple, delayed and prioritized": [
        add(delay=5, **dedup()), add(**dedup()), add(priority=3, **dedup("e")), add(**dedup("e"))
    ],
    "simple, in bulk": [bulk(dedup(), dedup(), dedup("e"), {}, dedup())],
    "for a time": [add(**dedup(ttl=60_000)), add(**dedup(ttl=60_000)), take(), complete("1"), owner(), add(**dedup())],
    "for a time that has passed": [add(**dedup(ttl=60_000)), runs_out(), add(**dedup(ttl=60_000))],
    "for a time that begins anew": [
        add(**dedup(ttl=60_000, extend=True)), add(**dedup(ttl=60_000, extend=True)), take(), complete("1")
    ],
    "replaced": [
        add(delay=500, **dedup(replace=True)), add("b", {"n": 2}, delay=500, **dedup(replace=True)),
        add(delay=90, **dedup(replace=True)), owner(),
    ],
    "replaced for a time": [
        add(delay=500, **dedup(ttl=60_000, replace=True)), add(delay=500, **dedup(ttl=60_000, replace=True)),
        add(delay=500, **dedup(ttl=60_000, replace=True, extend=True)),
    ],
    "not replaced once it waits": [add(**dedup(replace=True)), add(delay=5, **dedup(replace=True)), owner()],
    "not replaced once it runs": [
        add(**dedup(replace=True)), take(), add(**dedup(replace=True)), complete("1"), add(**dedup(replace=True))
    ],
    "rescheduled": [
        add(delay=500, **dedup(reschedule=True)), time_passes(9), add(delay=500, **dedup(reschedule=True)),
        add(**dedup(reschedule=True)), add(delay=7, **dedup()),
    ],
    "not rescheduled once it waits": [add(**dedup(reschedule=True)), add(delay=5, **dedup(reschedule=True))],
    "the last is kept": [
        add(**dedup(keepLastIfActive=True)), take(), add("b", 2, **dedup(keepLastIfActive=True)),
        add("c", 3, **dedup(keepLastIfActive=True)), complete("1", fetch=True), complete("3"), owner(),
    ],
    "the last is kept, delayed": [
        add(**dedup(keepLastIfActive=True)), take(), add(delay=50, **dedup(keepLastIfActive=True)), complete("1")
    ],
    "the last is kept, prioritized": [
        add(**dedup(keepLastIfActive=True)), take(), add(priority=5, **dedup(keepLastIfActive=True)), fail("1")
    ],
    "the last is kept, of a custom id": [
        add(**dedup(keepLastIfActive=True)), take(), add(jobId="x", **dedup(keepLastIfActive=True)), complete("1")
    ],
    "the last is kept, while waiting": [
        add(**dedup(keepLastIfActive=True)), add(**dedup(keepLastIfActive=True)), take(), complete("1")
    ],
    "the last is kept, through a retry": [
        add(attempts=2, **dedup(keepLastIfActive=True)), take(), add(**dedup(keepLastIfActive=True)), fail("1"),
        take(), complete("1"),
    ],
    "the last is kept, for a time": [
        add(**dedup(ttl=60_000, keepLastIfActive=True)), take(), add(**dedup(ttl=60_000, keepLastIfActive=True)),
        complete("1"),
    ],
    "the last is kept, replaced": [
        add(**dedup(keepLastIfActive=True, replace=True)), take(), add(**dedup(keepLastIfActive=True, replace=True)),
        complete("1"),
    ],
    "a stale owner": [add(**dedup()), vanishes("1"), add(**dedup()), owner()],
    "a stale owner for a time": [add(**dedup(ttl=60_000)), vanishes("1"), add(**dedup(ttl=60_000))],
    "freed": [add(**dedup()), free(), free(), add(**dedup())],
    "freed by its job": [add(**dedup()), free_own("1"), add(**dedup()), free_own("1"), free_own("2")],
    "freed by removal": [add(**dedup(ttl=60_000)), remove("1"), add(**dedup())],
    "freed by draining": [add(**dedup()), drain(), add(**dedup())],
    "freed by cleaning": [add(**dedup()), clean("waiting"), add(**dedup()), owner()],
    "freed by obliterating": [add(**dedup()), add(**dedup("e", ttl=60_000)), obliterate(), owner(), owner("e")],
    "not freed by a stranger's end": [add(**dedup()), free(), add(**dedup()), take(), complete("1"), owner()],
}  # fmt: skip

IN_R = "r"
POLICIES: dict[str, dict[str, Json]] = {
    policy: {policy: True}
    for policy in (
        "failParentOnFailure",
        "continueParentOnFailure",
        "ignoreDependencyOnFailure",
        "removeDependencyOnFailure",
    )
}
FLOWING: dict[str, list[Step]] = {
    "a parent and two children": [
        flow(node("p", node("a"), node("b"))), take(), complete("a", value=1), children("p"), take(),
        complete("b", value=[2]), children("p"), take(), complete("p"),
    ],
    "finished with the next": [
        flow(node("p", node("a"), node("b"))), take(), complete("a", fetch=True), complete("b", fetch=True),
        complete("p", fetch=True),
    ],
    "finished in one call": [
        flow(node("p", node("a"), node("b"))), take_many(3), finish_many(3, done("a"), done("b")), complete("p")
    ],
    "without children": [flow(node("a"))],
    "three levels": [
        flow(node("g", node("p", node("a"), node("b")), node("c"))),
        *[step for n in "cabpg" for step in (take(), complete(n))],
    ],
    "two trees": [flow(node("p", node("a")), node("s", node("b"), node("c")))],
    "over two queues": [
        flow(node("p", node("a", queue=IN_R), node("b"))), take(), complete("b"), at(IN_R, take()),
        at(IN_R, complete("a")), take(), complete("p"),
    ],
    "a parent with a delay": [
        flow(node("p", node("a"), delay=500)), take(), complete("a"), time_passes(500), take(), complete("p")
    ],
    "a parent with a priority": [flow(node("p", node("a"), priority=4)), add(priority=4), take(), complete("a")],
    "a parent with lifo": [add(), flow(node("p", node("a"), lifo=True)), take(), take(), complete("a"), take()],
    "children with options": [
        flow(node("p", node("a", delay=5), node("b", priority=3), node("c", lifo=True, attempts=2), attempts=3))
    ],
    "into a paused queue": [PAUSE, flow(node("p", node("a"))), RESUME, take(), PAUSE, complete("a")],
    "a child that fails, no policy": [
        flow(node("p", node("a"), node("b"))), take(), fail("a"), take(), complete("b"), children("p"), retry("a"),
        take(), complete("a"), take(),
    ],
    **{
        f"a child that fails, {policy}": [
            flow(node("p", node("a", **how), node("b"))), take(), fail("a"), children("p"), take(),
            take(), complete("b"), children("p"), take(), complete("p"),
        ]
        for policy, how in POLICIES.items()
    },
    **{
        f"the only child fails, {policy}": [
            flow(node("p", node("a", **how))), take(), fail("a"), children("p"), take(),
            fail("p", unrecoverable=True), retry("a"),
        ]
        for policy, how in POLICIES.items()
    },
    "a child that fails at first": [
        flow(node("p", node("a", attempts=2, failParentOnFailure=True))), take(), fail("a"), take(), complete("a")
    ],
    "a grandparent fails": [
        flow(node("g", node("p", node("a", failParentOnFailure=True), failParentOnFailure=True))),
        take(), fail("a"), take(), fail("p", unrecoverable=True), take(), fail("g", unrecoverable=True),
    ],
    "the child of another queue fails the parent": [
        flow(node("p", node("a", queue=IN_R, failParentOnFailure=True))), at(IN_R, take()), at(IN_R, fail("a")), take()
    ],
    "a parent that is delayed fails": [
        flow(node("p", node("a", failParentOnFailure=True), node("b", continueParentOnFailure=True), delay=500)),
        take_many(2), fail("b"), fail("a"), take(),
    ],
    "a parent that is active fails": [
        flow(node("p", node("a", failParentOnFailure=True), node("b", continueParentOnFailure=True))),
        take_many(2), fail("b"), take(), fail("a"), complete("p"),
    ],
    "a parent that went on cannot complete": [
        flow(node("p", node("a"), node("b", continueParentOnFailure=True))), take_many(2), fail("b"), take(),
        complete("p"), remove_unprocessed_children("p"), lock_runs_out("a"), remove_unprocessed_children("p"),
        complete("p"),
    ],
    "children removed when done": [
        flow(node("p", node("a", removeOnComplete=True), node("b", removeOnFail=True), node("c"))),
        take_many(3), complete("a"), fail("b"), complete("c"), take(),
    ],
    "the last child evicted": [
        flow(node("p", node("a", removeOnFail=True))), take(), fail("a"), take()
    ],
    "a failed child evicted": [
        flow(node("p", node("a"))), take(), fail("a"), add(removeOnFail=1), take(), fail("2", error="late"), take()
    ],
    "adopted": [
        add(jobId="a"), flow(node("p", node("a"), node("b"))), take_many(3), complete("a"), complete("b")
    ],
    "adopted when completed": [
        add(jobId="a"), take(), complete("a", value=7), flow(node("p", node("a"))), children("p"), take()
    ],
    "adopted when one is completed": [
        add(jobId="a"), take(), complete("a", value=7), flow(node("p", node("a"), node("b"))), take(), complete("b")
    ],
    "not adopted, another's child": [
        flow(node("p", node("a"))), flow(node("s", node("a"), node("b"))), take_many(3), complete("a"), complete("b")
    ],
    "adopted from a parent that is gone": [
        flow(node("p", node("a"))), vanishes("p"), flow(node("s", node("a"))), take(), complete("a")
    ],
    "added to a parent": [
        add(jobId="p"), take(), add(parent={"id": "p", "queue": "q"}), add(parent={"id": "p", "queue": "q"}, delay=5),
        add(parent={"id": "p", "queue": "q"}, priority=5), children("p"), wait_for_children("p"), promote("3"),
        *[step for n in "324" for step in (take(), complete(n))], take(), complete("p"),
    ],
    "added to a parent that is not there": [add(parent={"id": "nobody", "queue": "q"}), add()],
    "added to a parent in bulk": [
        add(jobId="p"), bulk({"parent": {"id": "p", "queue": "q"}}, {}, {"parent": {"id": "p", "queue": "q"}})
    ],
    "a flow below a parent": [
        add(jobId="g"), take(), flow(node("p", node("a"), parent={"id": "g", "queue": "q"})), wait_for_children("g"),
        *[step for n in "apg" for step in (take(), complete(n))],
    ],
    "nothing to wait for": [add(), take(), wait_for_children("1"), complete("1")],
    "waiting for one child": [
        add(jobId="p"), take(), add(parent={"id": "p", "queue": "q"}), add(parent={"id": "p", "queue": "q"}),
        wait_for_children("p", child=("q", "9")), wait_for_children("p", child=("q", "3")), take(), complete("2"),
        take(),
    ],
    "waiting without the lock": [
        add(jobId="p"), take(), add(parent={"id": "p", "queue": "q"}), wait_for_children("p", "t9"),
        lock_runs_out("p"), wait_for_children("p"), wait_for_children("nobody"),
    ],
    "waiting when a child has failed": [
        add(jobId="p"), take("t1"), add(parent={"id": "p", "queue": "q"}, failParentOnFailure=True), take("t2"),
        fail("2", "t2"), wait_for_children("p"), complete("p"),
    ],
    "a parent is removed": [flow(node("p", node("a"), node("b"))), remove("p")],
    "a parent is removed without its children": [flow(node("p", node("a"), node("b"))), remove("p", children=False)],
    "a parent is not removed while a child runs": [
        flow(node("p", node("a"), node("b"))), take(), remove("p"), remove("a")
    ],
    "a child is removed": [flow(node("p", node("a"), node("b"))), remove("a"), remove("b"), take()],
    "a tree is removed": [
        flow(node("g", node("p", node("a", queue=IN_R)), node("b"))), take(), complete("b"), remove("g")
    ],
    "children are drained": [flow(node("p", node("a"), node("b"))), drain()],
    "children of another queue are drained": [flow(node("p", node("a", queue=IN_R))), drain(queue=IN_R), take()],
    "children are cleaned": [
        flow(node("p", node("a"), node("b"))), take(), fail("a"), clean("failed"), clean("waiting")
    ],
    "a child is cut off": [
        flow(node("p", node("a"), node("b"))), cut_from_parent("a"), cut_from_parent("a"), cut_from_parent("b"), take(),
    ],
    "a job without a parent is cut off": [add(), cut_from_parent("1"), cut_from_parent("nobody")],
    "a child of nobody is cut off": [flow(node("p", node("a"))), vanishes("p"), cut_from_parent("a")],
    "a completed child runs again": [
        flow(node("p", node("a"), node("b"))), take(), complete("a"), retry("a", "completed"), children("p"),
        take_many(2), complete("b"), complete("a"),
    ],
    "failed children run again in bulk": [
        flow(node("p", node("a", ignoreDependencyOnFailure=True), node("b", failParentOnFailure=True), node("c"))),
        take_many(3), fail("a"), fail("b"), retry_jobs(), children("p"),
    ],
    "children are retried by the stalled check": [
        flow(node("p", node("a"))), take(), lock_runs_out("a"), stalled(), INTERVAL_PASSES, stalled(), take(),
        complete("a"),
    ],
    "finished in one call, with failures": [
        flow(node("p", node("a", failParentOnFailure=True), node("b")), node("s", node("c"), node("d"))),
        take_many(4), finish_many(4, done("c"), failed("a"), done("d"), done("b")), take(),
    ],
    "a child delays itself": [
        flow(node("p", node("a"))), take(), delay("a", 1_800_000_000_500), time_passes(500), take(), complete("a")
    ],
}  # fmt: skip

MEASURING: dict[str, list[Step]] = {
    "nothing": [metrics(), metrics("failed")],
    "a gap": [
        step
        for wait in (5, 59_000, 1_500, 180_000, 60_000, 600_000, 0)
        for step in (
            add(jobId=f"at-{wait}"), take(worker="named"), complete(f"at-{wait}", worker="named"), metrics(),
            time_passes(wait),
        )
    ],
    "failures": [
        step
        for wait in (60_000, 120_000, 0)
        for step in (
            add(jobId=f"at-{wait}"), take(worker="named"), fail(f"at-{wait}", worker="named"), metrics("failed"),
            time_passes(wait),
        )
    ],
    "many at once": [
        *[add()] * 6, take_many(6, worker="named"), finish_many(0, done("1"), failed("2"), done("3"), worker="named"),
        time_passes(60_000), finish_many(0, done("4"), failed("5"), done("6"), worker="named"), metrics(),
    ],
    "a worker that does not measure": [add(), take(), complete("1"), metrics()],
    "obliterated": [add(), take(worker="named"), complete("1", worker="named"), obliterate(), metrics()],
}  # fmt: skip

PROGRAMS = {
    "measuring": MEASURING,
    "changing": CHANGING,
    "removing": REMOVING,
    "limiting": LIMITING,
    "deduplicating": DEDUPLICATING,
    "flowing": FLOWING,
}
