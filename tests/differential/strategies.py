"""What random programs are made of: every move of `OPERATIONS`, with arguments that meet one another again.

Programs are drawn as lists of steps, and not run as a `RuleBasedStateMachine`: a list is known before it runs, so it
can be printed, shortened and pasted as it is, and the same list goes to both clients. A step that depends on what the
queue holds by then says so by a `Pick`; one that would meet a known quirk of the reference is left out then (`unless`).
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from hypothesis import strategies as st

from .bench import ITS, START_MS, Pick, PickEnds, Step
from .programs_of_schedulers import RICH

__all__ = ["EVERYTHING", "LIFE", "SCHEDULES", "USE", "Steps", "programs"]

Json = Any
Steps = list[Step]

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
WORKER = st.sampled_from(["plain", "plain", "plain", "named", "named", "limited"])
TOKEN = st.sampled_from(["t1", "t2"])
INDEX = st.integers(0, 4)
HELD = st.sampled_from([ITS] * 14 + ["t1", "foreign"])
HOW = st.sampled_from(["done", "done", "failed"])


def picked(*keys: str) -> st.SearchStrategy[Pick]:
    """A job of the first of these that has any."""
    return st.builds(Pick, st.just(keys), INDEX)


def step(move: str, /, **args: st.SearchStrategy[Any]) -> st.SearchStrategy[Steps]:
    return st.fixed_dictionaries(args).map(lambda drawn: [(move, drawn)])


def mostly(usual: st.SearchStrategy[Any], unusual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda number: usual if number else unusual)


def weighted(*choices: tuple[int, st.SearchStrategy[Steps]]) -> st.SearchStrategy[Steps]:
    """One of the choices, each as often as its weight says."""
    return st.sampled_from([choice for weight, choice in choices for _ in range(weight)]).flatmap(
        lambda one: one
    )


STATES = ("active", "wait", "delayed", "prioritized", "completed", "failed", "waiting-children")
ANY = st.permutations(STATES).flatmap(lambda keys: picked(*keys))
ACTIVE = mostly(picked("active"), ANY)
FINISHED = mostly(st.one_of(picked("failed", "completed"), picked("completed", "failed")), ANY)
DELAYED = mostly(picked("delayed"), ANY)

ADD = step("add", name=st.just("job"), data=DATA, options=OPTIONS)
TAKE = step("take", token=TOKEN, worker=WORKER)
ONE_AT_A_TIME = st.just(("runs to come",))
TAKE_MANY = step("take_many", token=TOKEN, want=st.integers(1, 5), worker=WORKER, unless=ONE_AT_A_TIME)
COMPLETE = step("complete", job=ACTIVE, token=HELD, value=DATA, fetch=st.booleans(), worker=WORKER)
FAIL = step("fail", job=ACTIVE, token=HELD, error=st.just("boom"), unrecoverable=st.booleans(), worker=WORKER)
FINISH_MANY = step(
    "finish_many",
    ends=st.builds(PickEnds, st.lists(HOW, min_size=1, max_size=4).map(tuple), st.booleans()),
    want=st.integers(0, 4),
    worker=WORKER,
    unless=ONE_AT_A_TIME,
)


def in_a_row(*some: st.SearchStrategy[Steps]) -> st.SearchStrategy[Steps]:
    return st.tuples(*some).map(lambda parts: [one for part in parts for one in part])


RUN = in_a_row(TAKE, st.one_of(COMPLETE, FAIL))
"""A job is taken, and one that is active ends: most moves need a few of these before them."""
LATER = step("time_passes", ms=st.sampled_from([1, 5, 1000, 3000, 90_000]))
STALL = in_a_row(
    step("lock_runs_out", job=picked("active")), step("stalled", worker=WORKER), step("interval_passes"),
    step("stalled", worker=WORKER),
)  # fmt: skip

LIFE: st.SearchStrategy[Steps] = weighted(
    (8, ADD),
    (2, step("add_bulk", jobs=st.lists(JOB, min_size=1, max_size=5))),
    (4, TAKE),
    (3, TAKE_MANY),
    (8, RUN),
    (4, COMPLETE),
    (3, FAIL),
    (4, in_a_row(TAKE_MANY, FINISH_MANY)),
    (4, LATER),
    (2, step("delay", job=ACTIVE, token=HELD, until=st.sampled_from([START_MS, START_MS + 1000]))),
    (2, step("give_back", job=ACTIVE, token=HELD)),
    (2, step("promote", job=DELAYED)),
    (3, step("retry", job=FINISHED, state=st.sampled_from(["failed", "completed"]), reset_made=st.booleans(),
             reset_started=st.booleans())),
    (1, st.builds(
        lambda jobs, tokens: [("extend_locks", {"jobs": jobs, "tokens": tokens})],
        st.lists(ACTIVE, min_size=2, max_size=2),
        st.lists(TOKEN, min_size=2, max_size=2),
    )),
    (2, STALL),
    (1, step("stalled", worker=WORKER)),
    (1, step("lock_runs_out", job=ACTIVE)),
    (1, step("progress", job=ANY, value=DATA)),
    (2, step("log", job=ANY, row=st.just("row"))),
    (1, step("update_data", job=ANY, data=DATA)),
    (1, step("job", job=ANY)),
    (1, step("state", job=ANY)),
    (1, step("counts")),
    (1, step(
        "jobs",
        states=st.lists(st.sampled_from(["active", "waiting", "delayed", "prioritized", "failed"]), max_size=2),
        start=st.integers(-2, 3),
        end=st.integers(-2, 3),
        ascending=st.booleans(),
    )),
    (1, step("pause")),
    (2, step("resume")),
    (1, st.one_of(
        step("limit_concurrency", most=st.integers(2, 4)), step("old_version_pauses"), step("marker_is_popped")
    )),
)  # fmt: skip

# What touches other jobs, too: ids are few, so that programs meet them again.
IDS = st.sampled_from(["x", "y", "z", "p"])
QUEUE = st.sampled_from(["q", "q", "q", "r"])
POLICY = st.sampled_from(
    [
        {},
        {"failParentOnFailure": True},
        {"continueParentOnFailure": True},
        {"ignoreDependencyOnFailure": True},
        {"removeDependencyOnFailure": True},
    ]
)
DEDUPLICATION = st.fixed_dictionaries(
    {"id": st.sampled_from(["d", "e"])},
    optional={
        "ttl": st.just(60_000),
        "extend": st.just(True),
        "replace": st.just(True),
        "reschedule": st.just(True),
        "keepLastIfActive": st.just(True),
    },
)
LEAF_OPTIONS = st.builds(
    lambda policy, more: {**policy, **more},
    POLICY,
    st.fixed_dictionaries(
        {},
        optional={
            "delay": st.sampled_from([5, 1000]),
            "priority": st.integers(0, 2),
            "attempts": st.integers(0, 2),
            "lifo": st.booleans(),
            "removeOnComplete": RETENTION,
            "removeOnFail": RETENTION,
        },
    ),
)
TREE = st.recursive(
    st.fixed_dictionaries({"queue": QUEUE, "id": IDS, "options": LEAF_OPTIONS}),
    lambda trees: st.fixed_dictionaries(
        {
            "queue": QUEUE,
            "id": IDS,
            "options": LEAF_OPTIONS,
            "children": st.lists(trees, min_size=1, max_size=3),
        }
    ),
    max_leaves=5,
)
STATE = st.sampled_from(["completed", "failed", "delayed", "prioritized", "waiting", "active"])
FLOWS = st.lists(TREE, min_size=1, max_size=2).filter(lambda flows: _has_unique_ids(flows))
D = st.sampled_from(["d", "e"])
DEDUPLICATED = step(
    "add",
    name=st.just("job"),
    data=DATA,
    options=st.builds(lambda options, one: {**options, "deduplication": one}, OPTIONS, DEDUPLICATION),
)
CHILD = step(
    "add",
    name=st.just("job"),
    data=DATA,
    options=st.builds(
        lambda options, parent: {**options, "parent": parent},
        LEAF_OPTIONS,
        st.fixed_dictionaries(
            {"id": mostly(picked("active", "waiting-children"), ANY), "queue": st.just("q")}
        ),
    ),
)


def elsewhere(steps: st.SearchStrategy[Steps]) -> st.SearchStrategy[Steps]:
    """The steps in the other queue."""
    return steps.map(lambda some: [(move, {"queue": "r", **args}) for move, args in some])


USE: st.SearchStrategy[Steps] = weighted(
    (30, LIFE),
    (12, elsewhere(LIFE)),
    (8, step("add_flows", flows=FLOWS)),
    (5, DEDUPLICATED),
    (3, in_a_row(DEDUPLICATED, TAKE, DEDUPLICATED)),
    (3, CHILD),
    (3, in_a_row(TAKE, CHILD, step("wait_for_children", job=picked("active"), token=HELD))),
    (1, step("wait_for_children", job=ACTIVE, token=HELD)),
    (2, step("remove", job=ANY, children=st.booleans(), queue=QUEUE)),
    (1, step("remove_unprocessed_children", job=picked("waiting-children", "active"))),
    (2, step("cut_from_parent", job=ANY, queue=QUEUE)),
    (2, step("children", job=picked("waiting-children", "active", "wait"))),
    (1, step("drain", delayed=st.booleans(), queue=QUEUE, unless=st.just(("a run waits",)))),
    (2, step("clean", state=STATE, grace_ms=st.sampled_from([0, 5]), limit=st.integers(0, 3))),
    (1, step("obliterate", force=st.booleans(), unless=st.just(("children awaited",)))),
    (2, step("retry_jobs", state=st.sampled_from(["failed", "completed"]), count=st.sampled_from([1, 1000]))),
    (1, step("promote_jobs", count=st.sampled_from([1, 1000]))),
    (1, step("remove_orphans", unless=st.just(("failures measured",)))),
    (2, step("change_delay", job=DELAYED, ms=st.sampled_from([0, 5, 900]))),
    (2, step("change_priority", job=ANY, priority=st.integers(0, 3), lifo=st.booleans())),
    (1, step("free_deduplication", id=D)),
    (1, step("free_own_deduplication", job=ANY)),
    (1, step("deduplication_runs_out", id=D)),
    (1, step("limit", most=st.integers(1, 3), ms=st.just(60_000))),
    (1, st.one_of(step("unlimit"), step("window_ends"), step("rate_limit", ms=st.just(60_000)))),
)


# Job schedulers, with templates that meet the other features.
SCHEDULER = st.sampled_from(["a", "a", "b"])
TEMPLATE: st.SearchStrategy[dict[str, Json]] = st.sampled_from(
    [
        {},
        {},
        {"name": "ping"},
        {"data": {"a": 1}},
        RICH,
        {"opts": {"lifo": True, "removeOnComplete": True}},
        # Never a bare number: toril writes a template's backoff in the form that all other jobs have.
        {"opts": {"attempts": 2, "backoff": {"type": "fixed", "delay": 5}, "removeOnFail": 1}},
        {"opts": {"priority": 2}},
    ]
)
DATES: st.SearchStrategy[dict[str, Json]] = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 4),
        "startDate": st.sampled_from([START_MS - 1, START_MS + 2500, START_MS + 30_000]),
        "endDate": st.sampled_from([START_MS + 90_000, START_MS + 900_000]),
    },
)
INTERVAL = st.builds(
    lambda every, offset, dates: {"every": every, **offset, **dates},
    st.sampled_from([777, 1000, 1000, 5000, 60_000]),
    st.sampled_from([{}, {}, {"offset": 300}]),
    DATES,
)
PATTERN = st.builds(
    lambda pattern, dates: {"pattern": pattern, "tz": "Europe/Stockholm", **dates},
    st.sampled_from(["* * * * * *", "*/5 * * * * *", "* * * * *", "*/3 * * * *", "0 4 * * *"]),
    DATES,
)
UPSERT = step(
    "upsert_scheduler",
    id=SCHEDULER,
    repeat=st.one_of(INTERVAL, PATTERN),
    template=TEMPLATE,
    unless=st.just(("paused", "a run is ahead")),
)
SCHEDULES: st.SearchStrategy[Steps] = weighted(
    (4, UPSERT),
    (6, RUN),
    (4, step("time_passes", ms=st.sampled_from([1, 777, 1000, 2500, 5000, 60_000, 3_600_000]))),
    (2, in_a_row(UPSERT, TAKE)),
    (1, step("remove_scheduler", id=SCHEDULER)),
    (1, step("scheduler", id=SCHEDULER)),
    (1, step("schedulers", start=st.integers(0, 1), end=st.integers(-1, 2), ascending=st.booleans())),
    (1, step("promote", job=DELAYED)),
    (1, step("give_back", job=ACTIVE, token=HELD)),
    (1, STALL),
)

EVERYTHING: st.SearchStrategy[Steps] = weighted(
    (6, USE),
    (3, SCHEDULES),
    (1, st.one_of(
        step("clear_logs", job=ANY, keep=st.integers(0, 2)),
        step("logs", job=ANY, start=st.integers(-2, 2), end=st.integers(-2, 2), ascending=st.booleans()),
        step("metrics", state=st.sampled_from(["completed", "failed"])),
        step("is_paused"),
        step("is_maxed"),
        step("unlimit_concurrency"),
        step("limit_concurrency", most=st.integers(1, 3)),
        step("counts_per_priority", priorities=st.lists(st.integers(0, 3), max_size=3)),
        step("deduplication_owner", id=D),
    )),
)  # fmt: skip


def _has_unique_ids(flows: list[Json]) -> bool:
    """Whether no queue gets the same id twice: the order in which it would is the clients' own affair."""
    ids: list[tuple[str, str]] = []

    def collect(tree: Json) -> None:
        ids.append((tree["queue"], tree["id"]))
        for child in tree.get("children", ()):
            collect(child)

    for flow in flows:
        collect(flow)
    return len(ids) == len(set(ids))


def programs(steps: st.SearchStrategy[Steps], longest: int) -> st.SearchStrategy[Steps]:
    # Lists of a drawn length: left to itself Hypothesis makes them too short for a job's whole life.
    def of_length(length: int) -> st.SearchStrategy[Steps]:
        return st.lists(steps, min_size=length, max_size=length).map(
            lambda parts: list(chain.from_iterable(parts))
        )

    return st.integers(1, longest).flatmap(of_length)
