"""Any data, name, id and option: it is stored whole and read back, or refused with a type, without a trace."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz import examples
from toril import Custom, Deduplication, Exponential, Fixed, KeepJobs, Queue, TorilError
from toril.embedded import EmbeddedServer

HARD = st.sampled_from(
    [
        *(
            "",
            " ",
            "\n",
            "\x00",
            "\u2028",
            "\u202e",
            "😀",
            "\ud800",
            "é" * 128,
            "x" * 257,
            "x" * 4096,
            "{}",
            "{a}b",
            "%00",
        ),
        *(
            ":",
            "::",
            "0:x",
            "../",
            "<img src=x onerror=alert(1)>",
            "__proto__",
            "constructor",
            "0",
            "-1",
            "1e9",
            "3e+8",
        ),
        *("repeat:a:1", "wait", "meta", "a:b:c", "de:x", "events"),
    ]
)
NUMBERS: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(-1, 0, 1, 2**21, 2**21 - 1, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63, 10**400),
        *(0.5, -0.0, 5e-324, 1e308, math.nan, math.inf, -math.inf, "5", True, None, [], {}, b"x", object),
    ]
)
TEXTS = st.one_of(HARD, st.text(max_size=20))
DATA: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        NUMBERS, TEXTS, st.booleans(), st.none(), st.dates(), st.decimals(), st.uuids(), st.binary(max_size=3)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXTS, inner, max_size=4),
        st.sets(st.integers(), max_size=2),
    ),
    max_leaves=12,
)
OPTIONS = st.dictionaries(
    st.sampled_from(
        [
            *(
                "delay",
                "priority",
                "attempts",
                "lifo",
                "timestamp",
                "keep_logs",
                "stack_trace_limit",
                "size_limit",
            ),
            *(
                "remove_on_complete",
                "remove_on_fail",
                "backoff",
                "deduplication",
                "job_id",
                "parent",
                "durability",
            ),
            *("fail_parent_on_failure", "nonsense"),
        ]
    ),
    st.one_of(
        NUMBERS,
        HARD,
        NUMBERS.map(lambda number: KeepJobs(count=number)),
        NUMBERS.map(lambda number: KeepJobs(age=number, limit=number)),
        NUMBERS.map(Fixed),
        NUMBERS.map(lambda number: Exponential(1, jitter=number)),
        HARD.map(Custom),
        TEXTS.map(Deduplication),
        NUMBERS.map(lambda number: Deduplication("d", ttl=number)),
    ),
    max_size=3,
)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(jobs=[("a", deep(64), {}), ("a", deep(65), {}), ("a", deep(200), {})])
@example(jobs=[("a", "x" * (1024 * 1024 - 2), {}), ("a", "x" * (1024 * 1024 - 1), {})])
@example(jobs=[("a", dict.fromkeys(map(str, range(100_000)), 0), {}), ("a", {"a": 10**400}, {})])
@example(
    jobs=[("a", {"__proto__": 1, "constructor": {"a.b": 2}, "\u2028": "\u202e\x00"}, {"priority": 10**400})]
)
@given(jobs=st.lists(st.tuples(TEXTS, DATA, OPTIONS), min_size=1, max_size=4))
def test_all_or_nothing(
    server: EmbeddedServer, prefix: str, jobs: list[tuple[Any, Any, dict[str, Any]]]
) -> None:
    """What is added is there as it was meant; what is refused leaves no trace."""
    asyncio.run(_add(server.url, prefix, jobs))


async def _add(url: str, prefix: str, jobs: list[tuple[Any, Any, dict[str, Any]]]) -> None:
    async with Queue(f"q-{uuid.uuid4().hex[:8]}", connection=url, prefix=prefix) as queue:
        for name, data, options in jobs:
            before = await _count(queue)
            job = None
            with suppress(TorilError):
                job = await queue.add(name, data, **options)
            if job is None:
                assert await _count(queue) == before
                continue
            found = await queue.get_job_or_raise(job.id)
            # A job with an id that was there, or one that stands for it, keeps what it had.
            if await _count(queue) > before:
                assert found.name == name
                json.loads(found.data_json, parse_constant=_no_constant)
                assert found.data == job.data
            assert await queue.get_job_state(job.id) != "unknown"
        await queue.obliterate(force=True)


def _no_constant(text: str) -> None:
    raise AssertionError(text)


async def _count(queue: Queue) -> int:
    return sum((await queue.get_job_counts()).values())
