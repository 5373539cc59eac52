"""Errors help: each refusal names the queue or the job, what was expected, and the option that is meant.

Nothing of the job's data stands in it, and nothing of the job in the server. The last test looks for refusals in the
sources that no case here has met.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import redis.asyncio

import toril
from tests.proofs import parsed
from toril import (
    ConfigurationError,
    Custom,
    Deduplication,
    Exponential,
    FlowJob,
    FlowProducer,
    KeepJobs,
    Limits,
    NewJob,
    Parent,
    Queue,
    SerializationError,
    Telemetry,
    TorilError,
)

SOURCES = Path(toril.__file__).parent
HUGE = 10**5000
LATER = datetime(2035, 1, 1, tzinfo=UTC)
SECRET = "hunter2"


class Evil:
    """Whose own words are an exception, and private."""

    def __repr__(self) -> str:
        raise ValueError(SECRET)


class Twin(str):
    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def deep(levels: int) -> Any:
    value: Any = SECRET
    for _ in range(levels):
        value = [value]
    return value


# What is wrong with the data, as an error calls it.
DATA: list[tuple[Any, str]] = [
    ({"a": math.nan}, "data.a: NaN and Infinity are not JSON; use None"),
    ([math.inf, SECRET], "data[0]: NaN and Infinity"),
    ({"a": 2**53, "b": SECRET}, "data.a: integer beyond 2^53, which loses digits in JavaScript; pass it as text"),
    ({"a": HUGE}, "data.a: integer beyond 2^53"),
    (deep(65), "nested deeper than 64 levels"),
    (deep(50_000), "nested deeper than 64 levels"),
    ({1: SECRET}, "data: key of type int; JSON keys are text"),
    ({Twin("a"): SECRET, Twin("a"): 2}, "data: two keys are the same text"),
    (SECRET.encode(), "data: bytes are not JSON; pass text"),
    ({SECRET}, "data: a set is not JSON; pass a list"),
    ({"a": Evil()}, "data.a: Evil is nothing that JSON can hold"),
    (MappingProxyType({"a": SECRET}), "data: mappingproxy is nothing that JSON can hold"),
    (f"{SECRET}\ud800", "data: text with half of a surrogate pair"),
    ({f"{SECRET}\ud800": 1}, "half of a surrogate pair"),
    (SECRET * 200, "has 1,402 bytes, more than Limits.data=1,000; store it elsewhere and pass its key"),
]  # fmt: skip
NO_FLAG: Any = "no"
# What is wrong with the options of any job.
OPTIONS: list[tuple[dict[Any, Any], str]] = [
    ({"atempts": 1}, "unknown job option 'atempts'; did you mean 'attempts'?"),
    ({"colour": 1}, "unknown job option 'colour'; there are attempts, backoff"),
    ({"priority": "5"}, "priority must be an integer, got str"),
    ({"priority": 2**21}, "priority must be between 0 and 2097151, got 2097152"),
    ({"attempts": HUGE}, "attempts must be between 0 and"),
    ({"lifo": 1}, "lifo must be True or False, got int"),
    ({"backoff": "x"}, "backoff delay must be a timedelta or a number of seconds, got str"),
    ({"backoff": -1}, "backoff delay must be between 0 and a hundred years"),
    ({"backoff": Exponential(1, jitter=HUGE)}, "backoff jitter must be between 0 and 1"),
    ({"backoff": Custom("fixed")}, "Custom backoff needs a name of its own, got 'fixed'"),
    ({"backoff": Custom(Evil())}, "Custom backoff needs a name of its own"),  # type: ignore[arg-type]
    ({"backoff": Custom("\ud800")}, "options: text with half of a surrogate pair"),
    ({"remove_on_fail": -1}, "remove_on_fail must be between 0 and"),
    ({"remove_on_complete": HUGE}, "False keeps all"),
    ({"remove_on_complete": "yes"}, "must be True, False, a number of jobs or KeepJobs(...), got str"),
    ({"remove_on_complete": KeepJobs()}, "KeepJobs needs a count or an age"),
    ({"remove_on_complete": KeepJobs(count=-1)}, "remove_on_complete.count must be between 0"),
    ({"telemetry": 5}, "telemetry must be Telemetry(...), got int"),
    ({"telemetry": Telemetry(5)}, "telemetry.metadata must be text, got int"),  # type: ignore[arg-type]
    ({"telemetry": Telemetry("x" * 600)}, "more than Limits.options=500"),
    ({5: 5}, "unknown job option 5"),
]
# Options that a job scheduler's jobs cannot have.
OF_ONE_JOB: list[tuple[dict[Any, Any], str]] = [
    ({"delay": math.nan}, "delay must be between 0 and a hundred years"),
    ({"timestamp": 5}, "timestamp must be between 1000000000000 and"),
    ({"deduplication": SECRET}, "deduplication must be Deduplication(...), got str"),
    ({"deduplication": Deduplication("")}, "deduplication needs an id that is text and not empty, got ''"),
    (
        {"deduplication": Deduplication("x", extend=NO_FLAG)},
        "deduplication.extend must be True or False, got str",
    ),
    ({"parent": 5}, "parent must be a Job or Parent(...), got int"),
    (
        {"deduplication": Deduplication("x"), "parent": Parent("1", "bull:q")},
        "deduplication and parent cannot be combined",
    ),
    (
        {"fail_parent_on_failure": True, "ignore_dependency_on_failure": True},
        "a job has one policy for its failure, not fail_parent_on_failure, ignore_dependency_on_failure",
    ),
    *(
        ({"job_id": job_id}, says)
        for job_id, says in [
            (5, "job_id must be text, got int"),
            ("x" * 257, "job_id is longer than 256 bytes"),
            ("\ud800", "half of a surrogate pair"),
            ("a\nb", "holds a control character"),
            ("42", "is an integer, which is how generated ids look; add a letter"),
            ("0:1", "begins with '0:', which marks an old wake-up marker"),
            ("a:b", "holds ':', which separates the parts of a key; use '-' or '.'"),
            ("wait", "is the name of one of the queue's own keys; add something"),
        ]
    ),
]
NAMES: list[tuple[Any, str]] = [
    ("", "a job's name is text and not empty"),
    (Evil(), "a job's name is text and not empty"),
    (
        "x" * 257,
        "a job's name has 257 bytes, more than 256; what differs from job to job belongs into its data",
    ),
    ("\ud800", "a job's name holds half of a surrogate pair"),
]

Call = Callable[[Queue, FlowProducer], Awaitable[Any]]


def both(name: Any, data: Any, options: Any, says: str) -> Iterator[tuple[str, Call, str]]:
    """The same in each way of adding."""
    yield "add", lambda queue, _: queue.add(name, data, **options), says
    yield "add_bulk", lambda queue, _: queue.add_bulk([("fine", 1), (name, data, options)]), says
    if "parent" not in options:
        child = FlowJob(name, "orders", data, options)
        yield "flow", lambda _, flows: flows.add(FlowJob("fine", "orders", children=[child])), says


def scheduled(says: str, **arguments: Any) -> tuple[str, Call, str]:
    arguments = {"every": 60, "scheduler_id": "nightly", **arguments}
    return "scheduler", lambda queue, _: queue.upsert_job_scheduler(**arguments), says


def flow(says: str, *nodes: Any, **arguments: Any) -> tuple[str, Call, str]:
    (root,) = nodes or [FlowJob("paint", arguments.pop("queue", "orders"), **arguments)]
    return "flow", lambda _, flows: flows.add(root), says


def tower(levels: int) -> FlowJob:
    job = FlowJob("paint", "orders")
    for _ in range(levels):
        job = FlowJob("paint", "orders", children=[job])
    return job


def cron(pattern: Any, says: str, **arguments: Any) -> tuple[str, Call, str]:
    return scheduled(says, every=None, pattern=pattern, **arguments)


CHILD = FlowJob("child", "orders", {"a": 1})
ANY: Any = None
NO_OPTIONS: Any = [SECRET]
CASES: list[tuple[str, Call, str]] = [
    *(case for data, says in DATA for case in both("paint", data, {}, says)),
    *(case for options, says in OPTIONS if 5 not in options for case in both("paint", SECRET, options, says)),
    *(case for options, says in OF_ONE_JOB for case in both("paint", SECRET, options, says)),
    *(case for name, says in NAMES for case in both(name, SECRET, {}, says)),
    ("add", lambda queue, _: queue.add("paint", SECRET, parent=Parent("x", "bull:q")), "its parent does not exist"),
    *both("paint", SECRET, {"size_limit": 5}, "has 9 bytes, more than its size_limit=5"),
    *list(both("paint", SECRET, {"durability": Evil()}, "durability must be one of 'replicated', 'fsynced'"))[:2],
    ("add_bulk", lambda queue, _: queue.add_bulk([ANY]), "holds NewJob(...), (name, data) or (name, data, options)"),
    ("add_bulk", lambda queue, _: queue.add_bulk([("a", 1, {}, SECRET)]), "got an object of type tuple"),  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    ("add_bulk", lambda queue, _: queue.add_bulk([NewJob("a", 1, NO_OPTIONS)]), "must be a mapping of names"),
    *(
        ("add_bulk", lambda queue, _, jobs=jobs: queue.add_bulk(jobs), f"takes a list of jobs, got {jobs}")  # pyright: ignore[reportArgumentType]
        for jobs in (ANY, 5)
    ),
    ("add_bulk", lambda queue, _: queue.add_bulk("text"), "(name, data, options), got 't'"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    ("add_bulk", lambda queue, _: queue.add_bulk([("a", 1)] * 6), "the list has 6 jobs, more than Limits.jobs=5"),
    flow("the flow of job 'paint' has 6 jobs", children=[CHILD] * 5),
    flow("children must be a list of FlowJob, got 5", children=5),
    flow("its children must be made of FlowJob(...), got an object of type Evil", children=[Evil()]),
    flow("options must be a mapping of names to values", options=[SECRET]),
    flow("its parent is the job above it", children=[FlowJob("child", "orders", 1, {"parent": Parent("1", "b:q")})]),
    flow("a job with children cannot be deduplicated", options={"deduplication": Deduplication("x")}, children=[CHILD]),
    flow("durability is for `add` and `add_bulk`", options={"durability": "replicated"}),
    flow("a flow is at most 100 levels deep", tower(101)),
    flow("queue name must not be empty", queue=""),
    flow("queue name must be text, got Evil", queue=Evil()),
    flow("holds ':', which separates the parts of a key; use another character", queue="a:b"),
    flow("prefix 'a\\x00' holds a control character", prefix="a\0"),
    *(scheduled(says, data=data) for data, says in DATA),
    *(scheduled(says, options=options) for options, says in OPTIONS),
    *(scheduled("cannot have the option", options=options) for options, _ in OF_ONE_JOB),
    *(scheduled(says, name=name) for name, says in NAMES if name != ""),
    scheduled("its id must be text, got Evil", scheduler_id=Evil()),
    scheduled("its id must not be empty", scheduler_id=""),
    scheduled("its id is longer than 256 bytes", scheduler_id="x" * 1000),
    scheduled("its id looks like that of a run; let it not end in ':' and digits", scheduler_id="a:5"),
    scheduled("is the key of a repeatable job of BullMQ 5", scheduler_id="a::::5000"),
    scheduled("options must be a mapping of names to values", options=[SECRET]),
    scheduled("it needs either every or a pattern", every=None),
    scheduled("every must be at least a millisecond", every=0),
    scheduled("every must be a timedelta or a number of seconds", every=SECRET),
    scheduled("limit must be a whole number, at least 1", limit=HUGE),
    scheduled("start_date must be a datetime or epoch milliseconds, got date", start_date=date(2030, 1, 1)),
    scheduled("start_date must lie between 2001 and 2039", start_date=datetime.min),
    scheduled("end_date must lie between 2001 and 2039", end_date=HUGE),
    scheduled("end_date is in the past", end_date=datetime(2020, 1, 1, tzinfo=UTC)),
    scheduled("end_date is before start_date", start_date=LATER, end_date=datetime(2034, 1, 1, tzinfo=UTC)),
    scheduled("offset must be shorter than every", offset=60),
    scheduled("immediately and offset exclude each other", immediately=True, offset=1),
    scheduled("immediately and start_date exclude each other", immediately=True, start_date=LATER),
    scheduled("immediately must be True or False", immediately="yes"),
    scheduled("missed must be one of skip, once, all", missed=Evil()),
    scheduled("tz belongs to a pattern", tz="UTC"),
    cron(5, "pattern must be text, got 5"),
    cron("* * * *", "must have five fields, or six with the seconds first"),
    cron("* " * 10_000, "must have five fields"),
    cron("* * * * *", "offset belongs to every", offset=5),
    cron("* * * * *", "no time zone '../etc/passwd' on this machine; names look like", tz="../etc/passwd"),
    cron("* * * * *", "a time zone must be text", tz=5),
    cron("61 * * * *", "minute 61 is not between 0 and 59"),
    cron("9" * 5000 + " * * * *", "is no minute"),
    cron("*/0 * * * *", "every 0 is never"),
    cron("5-1 * * * *", "runs backwards; write two ranges"),
    cron("/5 * * * *", "is no minute"),
    cron("1,1 * * * *", "names something twice"),
    cron("H * * * *", "'H' is another time for each reader; name one"),
    cron("* * * * 1#6", "must name one day and one of its five occurrences"),
    cron("* * 30 2 *", "so it never fires"),
    cron("@a b c d e f g", "it has 7 fields"),
    cron("@never", "'@never' is no"),
]  # fmt: skip
# What none of these calls can meet, and why.
ELSEWHERE = {
    ("codec", "check_depth"): "reads what is stored",
    ("codec", "loads"): "reads what is stored",
    ("options", "_parse"): "reads what is stored",
    ("limits", "__post_init__"): "makes Limits, test_limits_are_whole_and_positive",
    ("job_scheduler", "plan_next_run"): "plans a later run",
    ("queue", "__init__"): "makes a queue, test_defaults_are_checked_at_once",
    ("queue", "wait_for_end"): "waits for a job",
    ("keys", "job"): "reads a job, test_an_id_that_is_no_text_is_refused",
    (
        "flow_producer",
        "_commit",
    ): "what the server refuses, or says, test_flow_refusal.py and test_nonsense.py",
    ("flow_producer", "add_bulk"): "knows no queue yet, test_a_list_of_flows_is_a_list",
    (
        "flow_producer",
        "_add_all",
    ): "what a script refuses, test_a_child_needs_a_parent_that_exists_and_is_its_own",
    ("_cron", "parse"): "its text was checked before, for repeat_strategy's sake",
    ("_repeating", "_asked"): "a strategy of one's own, test_a_repeat_strategy_reads_patterns",
}
met: set[tuple[str, int]] = set()


@pytest.fixture
async def orders(server_url: str, prefix: str) -> Any:
    limits = Limits(data=1000, options=500, jobs=5)
    async with Queue("orders", connection=server_url, prefix=prefix, limits=limits) as queue:
        yield queue


async def test_a_refusal_says_where_what_and_how(orders: Queue, client: redis.asyncio.Redis) -> None:
    """Of each case: an error with a type, the words that help, nothing private, nothing long, nothing stored."""
    flows = FlowProducer(connection=orders.connection, prefix=orders.prefix, limits=orders.limits)
    wrong: list[str] = []
    for way, call, says in CASES:
        try:
            await call(orders, flows)
            wrong.append(f"{way}: {says}: was taken")
            await orders.obliterate(force=True)
            continue
        except TorilError as error:
            words, kind = str(error), type(error)
            remember(error)
        except Exception as error:
            wrong.append(f"{way}: {says}: {type(error).__name__}: {str(error)[:200]}")
            continue
        if says not in words:
            wrong.append(f"{way}: {says!r} is not in {words[:300]!r}")
        if "'orders'" not in words and "job '" not in words:
            wrong.append(f"{way}: neither queue nor job in {words!r}")
        if way == "scheduler" and not words.startswith("job scheduler"):
            wrong.append(f"{way}: no scheduler in {words!r}")
        if SECRET in words or len(words) > 500:
            wrong.append(f"{way}: too much in {words[:600]!r}")
        if not issubclass(kind, (ConfigurationError, SerializationError, toril.ParentNotFoundError)):
            wrong.append(f"{way}: {kind}")
    assert wrong == []
    # But what the server alone could refuse has left a receipt, which expires.
    left = [key async for key in client.scan_iter(match=f"{orders.prefix}:*") if ":toril:add:" not in key]
    assert left == []
    assert unmet() == []


def remember(error: BaseException | None) -> None:
    """Note where an error was raised, and each that it stands for."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None:
            path = Path(trace.tb_frame.f_code.co_filename)
            if path.parent == SOURCES:
                met.add((path.stem, trace.tb_lineno))
        error = error.__context__


def unmet() -> list[str]:
    """Statements that raise in the modules that take jobs in, where no case has come by."""
    found: list[str] = []
    for module in ("codec", "limits", "keys", "options", "backoff", "_scheduler_checks", "job_scheduler", "_cron",
                   "_repeating", "flow_producer", "queue"):  # fmt: skip
        for function, first, last in raises(module):
            if (module, function) not in ELSEWHERE and not any(
                (module, line) in met for line in range(first, last + 1)
            ):
                found.append(f"{module}.py:{first} in {function}")
    return found


@cache
def raises(module: str) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []

    def look(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
            if isinstance(child, ast.Raise) and child.exc is not None:
                found.append((function, child.lineno, child.end_lineno or child.lineno))
            look(child, name)

    look(parsed(SOURCES / f"{module}.py"), "")
    return found


def test_what_is_excepted_is_there() -> None:
    """A function that is gone needs no excuse."""
    functions = {module: {function for function, _, _ in raises(module)} for module, _ in ELSEWHERE}
    assert [key for key in ELSEWHERE if key[1] not in functions[key[0]]] == []
