"""Every option that takes a number, with every number that is none, too large or of another kind.

`test_adding.py` draws combinations by chance; here none is left out. What is taken is stored whole; what is refused
has a type, and leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from toril import Deduplication, Exponential, Fixed, KeepJobs, Limits, Queue, TorilError, Worker

NUMBERS: list[Any] = [
    *(-1, 0, 1, 2**21, 2**21 + 1, 2**31, 2**53, 2**63, 10**400, 10**5000, 0.5, -0.0, 5e-324, 1e308, math.nan, math.inf),
    *("5", "", True, None, [], {}, b"1", object()),
]  # fmt: skip
"""Beyond the largest priority, beyond the year 10000 as a delay, beyond a float."""
PLAIN = ("delay", "priority", "attempts", "timestamp", "keep_logs", "stack_trace_limit", "size_limit", "lifo",
         "remove_on_complete", "remove_on_fail", "backoff", "job_id", "deduplication")  # fmt: skip


def _plain(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: value}


ADDED: dict[str, Callable[[Any], dict[str, Any]]] = {
    **{name: _plain(name) for name in PLAIN},
    "KeepJobs.count": lambda value: {"remove_on_complete": KeepJobs(count=value)},
    "KeepJobs.age": lambda value: {"remove_on_fail": KeepJobs(age=value)},
    "KeepJobs.limit": lambda value: {"remove_on_fail": KeepJobs(age=1, limit=value)},
    "Fixed": lambda value: {"attempts": 2, "backoff": Fixed(value)},
    "Fixed.jitter": lambda value: {"attempts": 2, "backoff": Fixed(1, jitter=value)},
    "Exponential": lambda value: {"attempts": 2, "backoff": Exponential(value)},
    "Exponential.jitter": lambda value: {"attempts": 2, "backoff": Exponential(1, jitter=value)},
    "Deduplication.ttl": lambda value: {"deduplication": Deduplication("d", ttl=value)},
}  # fmt: skip
CALLED: dict[str, Callable[[Queue, Any], Awaitable[Any]]] = {
    "set_global_concurrency": lambda queue, value: queue.set_global_concurrency(value),
    "set_global_rate_limit": lambda queue, value: queue.set_global_rate_limit(value, 1),
    "set_global_rate_limit for": lambda queue, value: queue.set_global_rate_limit(1, value),
    "rate_limit": lambda queue, value: queue.rate_limit(value),
    "clean grace": lambda queue, value: queue.clean(value, 0, "completed"),
    "scheduler every": lambda queue, value: queue.upsert_job_scheduler("s", every=value),
    "scheduler limit": lambda queue, value: queue.upsert_job_scheduler("s", every=60, limit=value),
    "scheduler offset": lambda queue, value: queue.upsert_job_scheduler("s", every=60, offset=value),
    "scheduler start": lambda queue, value: queue.upsert_job_scheduler("s", every=60, start_date=value),
}
MADE = ("concurrency", "lock_duration", "stalled_interval", "max_stalled_count", "drain_delay", "grace", "limiter",
        "metrics_points", "maximum_rate_limit_delay", "remove_on_complete")  # fmt: skip


@pytest.mark.parametrize("option", ADDED)
async def test_a_job_is_stored_whole_or_not_at_all(queue: Queue, option: str) -> None:
    """A job that was taken can be read, with the state it claims; one that was refused is nowhere."""
    for value in NUMBERS:
        before = await queue.get_job_counts()
        try:
            job = await queue.add("paint", {"a": 1}, **ADDED[option](value))
        except TorilError:
            assert await queue.get_job_counts() == before, (option, value)
            continue
        found = await queue.get_job_or_raise(job.id)
        assert (found.name, found.data) == ("paint", {"a": 1}), (option, value)
        _ = repr(found), found.delay, found.priority, found.timestamp, found.options, found.attempts_made
        assert await queue.get_job_state(job.id) != "unknown", (option, value)


@pytest.mark.parametrize("verb", CALLED)
async def test_a_verb_takes_a_number_or_refuses_it(queue: Queue, verb: str) -> None:
    """Afterwards the queue's settings can still be read."""
    for value in NUMBERS:
        with suppress(TorilError):
            await CALLED[verb](queue, value)
        await queue.get_global_concurrency()
        await queue.get_global_rate_limit()
        await queue.get_rate_limit_ttl()
        await queue.get_job_schedulers()
        await queue.remove_job_scheduler("s")
        await queue.remove_rate_limit_key()


@pytest.mark.parametrize("option", MADE)
def test_a_worker_is_made_or_refused(server_url: str, prefix: str, option: str) -> None:
    """Before it connects, so that a mistyped option never meets a job."""
    for value in NUMBERS:
        try:
            Worker(Queue("tests", connection=server_url, prefix=prefix), lambda job: None, **{option: value})
        except TorilError:
            continue


@pytest.mark.parametrize(
    "name", ["data", "return_value", "jobs", "progress", "log_row", "options", "stored_data"]
)
def test_limits_are_made_or_refused(name: str) -> None:
    """A limit that is no number would be none at all."""
    for value in NUMBERS:
        try:
            assert getattr(Limits(**{name: value}), name) >= 1
        except TorilError:
            continue
