"""A worker: what it runs, in which order, how attempts end, how it stops."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import pytest

from tests.conftest import TurnedClock
from tests.patience import Heard, ended, like, until, within
from toril import (
    STOP,
    ConfigurationError,
    Custom,
    DelayedError,
    Exponential,
    Fixed,
    Job,
    JobFailedError,
    LockLostError,
    Queue,
    QueueEvents,
    UnrecoverableError,
    Worker,
)
from toril._loops.fetching import Fetching
from toril._wire import Wire
from toril.connection import Lane
from toril.embedded import EmbeddedServer

Client: TypeAlias = Any
"""redis-py's client, whose types mix text with bytes and answers with promises."""
SHORT: dict[str, Any] = {"lock_duration": 1, "stalled_interval": 0.3}
"""Locks and checks that fit a test."""


@pytest.fixture
async def other_queue(server_url: str, prefix: str) -> AsyncIterator[Queue]:
    """The same queue, as another process would see it: with connections of its own."""
    async with Queue("tests", connection=server_url, prefix=prefix) as queue:
        yield queue


async def record(client: Client, job: Job[Any]) -> dict[str, str]:
    fields: dict[str, str] = await client.hgetall(job.queue.keys.job(job.id))
    return fields


async def events(client: Client, queue: Queue, *names: str) -> list[str]:
    """`name id` of what has happened in the queue, in order."""
    entries = await client.xrange(queue.keys.key("events"))
    return [
        f"{fields['event']} {fields.get('jobId', '')}".strip()
        for _, fields in entries
        if not names or fields["event"] in names
    ]


# What it runs


@pytest.mark.parametrize(
    ("process", "says"),
    [
        (lambda: 1, "called with the job alone: too many positional"),
        (lambda job, more: 1, "called with the job alone: missing a required argument: 'more'"),
        ((lambda: (yield)), "a generator is no processor"),
    ],
)
def test_a_function_that_cannot_process_is_refused_before_any_job_fails(process: Any, says: str) -> None:
    """Each of its jobs would fail otherwise."""
    with pytest.raises(ConfigurationError, match=says):
        Worker("tests", process)


async def test_an_async_function_runs_on_the_event_loop(queue: Queue) -> None:
    """It is handed the job, with its claim; what it returns is the job's result."""

    async def process(job: Job) -> Any:
        assert threading.current_thread() is threading.main_thread()
        return {"name": job.name, "data": job.data, "starts": job.attempts_started, "by": job.processed_by}

    job = await queue.add("paint", {"n": 1})
    async with Worker(queue, process, name="wk-1"):
        assert await ended(job) == [{"name": "paint", "data": {"n": 1}, "starts": 1, "by": "wk-1"}]


async def test_a_plain_function_runs_in_a_thread(queue: Queue) -> None:
    """Two that wait for each other both end: each has a thread, and none blocks the loop."""
    both = threading.Barrier(2, timeout=10)

    def process(job: Job) -> str:
        both.wait()
        return threading.current_thread().name

    jobs = [await queue.add("paint") for _ in range(2)]
    async with Worker(queue, process, concurrency=2):
        names = await ended(*jobs)
    assert len(set(names)) == 2
    assert all(name.startswith("toril-tests") for name in names)


async def test_processors_are_chosen_by_name(queue: Queue) -> None:
    """Each job runs in the function of its name; `async def` and `def` side by side."""

    @queue.processor()
    async def add_up(a: int, b: int = 1) -> int:
        return a + b

    @queue.processor("shout")
    def shout_in_a_thread(text: str) -> str:
        return text.upper()

    jobs: list[Job[Any]] = [await add_up.add(1, b=2), await shout_in_a_thread.add("moo"), await add_up.add(1)]
    async with Worker(queue):
        assert await ended(*jobs) == [3, "MOO", 2]


async def test_a_job_of_an_unknown_name_is_put_off(
    queue: Queue, other_queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """Uncounted, with one warning per name, and without holding up others; a worker that knows it runs it."""

    @queue.processor("known")
    async def known() -> str:
        return "ran"

    unknown = [await queue.add("unknown") for _ in range(3)]
    job = await known.add()
    with caplog.at_level(logging.WARNING, "toril.worker"):
        async with Worker(queue, max_started_attempts=1):
            assert await ended(job) == ["ran"]
    for one in unknown:
        await one.refresh()
        assert await one.get_state() == "delayed"
        assert 15_000 <= one.delay <= 30_000
        assert (one.attempts_made, one.attempts_started, one.failed_reason) == (0, 0, None)
    assert len({one.delay for one in unknown}) > 1
    (warning,) = [record.getMessage() for record in caplog.records if "no processor" in record.getMessage()]
    assert warning.startswith(
        f"queue 'tests': no processor 'unknown' for job {unknown[0].id}; this worker knows 'known'. "
    )
    assert "import the module that defines it" in warning

    @other_queue.processor("unknown")
    async def newer(job: Job) -> int:
        return job.attempts_started

    for one in unknown:
        await one.promote()
    async with Worker(other_queue, max_started_attempts=1):
        assert await ended(*unknown) == [1, 1, 1]


async def test_a_worker_that_knows_no_name_puts_all_off(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that forgot to import its processors loses nothing by it."""
    job = await queue.add("unknown")
    async with Worker(queue):
        await until("the job is put off", job.is_delayed)
    assert "this worker knows none" in caplog.text


async def test_data_that_does_not_fit_fails_for_good(queue: Queue) -> None:
    """With the path of the fault, without a run, whatever attempts are left."""
    ran: list[int] = []

    @queue.processor(attempts=5)
    async def count(numbers: list[int]) -> None:
        ran.append(1)

    job = await queue.add("count", {"numbers": [1, "two"]}, attempts=5)
    async with Worker(queue):
        (error,) = await ended(job)
    assert "numbers" in error.failed_reason
    assert "1" in error.failed_reason
    await job.refresh()
    assert (ran, job.attempts_made) == ([], 1)


async def test_the_record_tells_the_whole_story(queue: Queue, client: Client) -> None:
    """Every field that the run has written, and no other."""

    async def process(job: Job) -> Any:
        await job.update_progress({"pct": 40})
        await job.log("row")
        return {"ok": True}

    job = await queue.add("paint", {"n": 1}, attempts=3, keep_logs=50)
    async with Worker(queue, process, name="wk1"):
        await ended(job)

    stands = await record(client, job)
    processed, finished = int(stands.pop("processedOn")), int(stands.pop("finishedOn"))
    assert job.timestamp <= processed <= finished <= time.time() * 1000 + 1000
    assert json.loads(stands.pop("opts")) == {"attempts": 3, "kl": 50}
    assert stands == {
        "name": "paint",
        "data": '{"n":1}',
        "timestamp": str(job.timestamp),
        "delay": "0",
        "priority": "0",
        "pb": "wk1",
        "ats": "1",
        "atm": "1",
        "progress": '{"pct":40}',
        "returnvalue": '{"ok":true}',
    }
    assert await events(client, queue) == [
        "added 1",
        "waiting 1",
        "active 1",
        "progress 1",
        "completed 1",
        "drained",
    ]
    assert (await queue.get_job_logs(job.id)).logs == ["row"]
    assert not await client.exists(queue.keys.job(job.id) + ":lock")


# Order


async def run_all(queue: Queue, count: int, **options: Any) -> list[str]:
    """Run what is in the queue, one by one; the names in order of their starts."""
    names: list[str] = []

    async def process(job: Job) -> None:
        names.append(job.name)

    worker = Worker(queue, process, **options)
    heard = Heard(worker, "completed")
    async with worker:
        await heard.wait(count)
    return names


async def test_jobs_run_as_they_came(queue: Queue) -> None:
    """FIFO at a concurrency of one."""
    await queue.add_bulk((f"job-{n}", n) for n in range(60))

    assert await run_all(queue, 60) == [f"job-{n}" for n in range(60)]


async def test_lifo_then_fifo_then_priorities(queue: Queue) -> None:
    """`lifo` first, no priority before any, 1 before 2, equals as they came."""
    await queue.add("low", priority=5)
    await queue.add("a")
    await queue.add("high-1", priority=1)
    await queue.add("b")
    await queue.add("high-2", priority=1)
    await queue.add("first", lifo=True)

    assert await run_all(queue, 6) == ["first", "a", "b", "high-1", "high-2", "low"]


async def test_a_delayed_job_runs_at_its_time(queue: Queue) -> None:
    """Not before, and soon after: an idle worker is woken by its alarm, not by its polling."""

    async def process(job: Job) -> float:
        return job.queue.clock.now_ms()

    worker = Worker(queue, process, drain_delay=60)
    heard = Heard(worker, "drained")
    async with worker:
        await heard.wait()
        late, soon = await queue.add("late", delay=0.6), await queue.add("soon", delay=0.3)
        for job, started in zip((late, soon), await ended(late, soon), strict=True):
            assert 0 <= started - (job.timestamp + job.delay) < 250


async def test_an_idle_worker_starts_a_job_at_once(queue: Queue) -> None:
    """It is woken by the marker."""

    async def process(job: Job) -> None: ...

    worker = Worker(queue, process, drain_delay=60)
    heard = Heard(worker, "drained")
    async with worker:
        await heard.wait()
        for _ in range(5):
            job = await queue.add("paint")
            await ended(job)
            await job.refresh()
            assert (job.processed_on or 0) - job.timestamp < 250


# Concurrency


@pytest.mark.parametrize("concurrency", [1, 3, 20])
async def test_no_more_run_at_once_than_allowed(queue: Queue, concurrency: int) -> None:
    """And as many as allowed do."""
    running = highest = 0
    full = asyncio.Event()

    async def process(job: Job) -> None:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        if running == concurrency:
            full.set()
        await full.wait()
        await asyncio.sleep(0.003 * (job.data % 4))
        running -= 1

    await queue.add_bulk(("n", n) for n in range(150))
    worker = Worker(queue, process, concurrency=concurrency)
    heard = Heard(worker, "completed")
    async with worker:
        await heard.wait(150)
    assert highest == concurrency
    assert await queue.get_job_counts("completed", "active") == {"completed": 150, "active": 0}


async def test_two_workers_share_the_work(queue: Queue, other_queue: Queue) -> None:
    """Each job runs once; both take part."""
    ran: dict[str, list[Any]] = {"a": [], "b": []}

    def process_as(who: str) -> Any:
        async def process(job: Job) -> None:
            ran[who].append(job.data)
            await asyncio.sleep(0.002)

        return process

    async with (
        Worker(queue, process_as("a"), concurrency=2),
        Worker(other_queue, process_as("b"), concurrency=2),
    ):
        jobs = await queue.add_bulk(("n", n) for n in range(200))
        await ended(*jobs)
    assert sorted(ran["a"] + ran["b"]) == list(range(200))
    assert ran["a"]
    assert ran["b"]


async def test_the_global_concurrency_holds_over_workers(
    queue: Queue, other_queue: Queue, client: Client
) -> None:
    """`meta.concurrency` bounds all workers together."""
    await queue.set_global_concurrency(2)
    running = highest = 0

    async def process(job: Job) -> None:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0.005)
        running -= 1

    jobs = await queue.add_bulk(("n", n) for n in range(40))
    async with (
        Worker(queue, process, concurrency=5, drain_delay=0.2),
        Worker(other_queue, process, concurrency=5, drain_delay=0.2),
    ):
        await ended(*jobs)
    assert highest == 2


async def test_a_rate_limit_holds_over_workers(queue: Queue, other_queue: Queue) -> None:
    """At most so many starts in a window, all workers together; afterwards it goes on by itself."""
    starts: list[float] = []

    async def process(job: Job) -> None:
        starts.append(time.monotonic())

    jobs = await queue.add_bulk(("n", n) for n in range(9))
    limiter = (3, timedelta(milliseconds=400))
    async with (
        Worker(queue, process, concurrency=5, limiter=limiter),
        Worker(other_queue, process, concurrency=5, limiter=limiter),
    ):
        await ended(*jobs)
    assert len(starts) == 9
    assert starts[3] - starts[0] > 0.3
    assert starts[6] - starts[3] > 0.3


async def test_calls_carry_many_jobs_under_load(queue: Queue, client: Client) -> None:
    """1000 jobs at a concurrency of 100: ends share calls, with each other and with the next fetch."""

    async def process(job: Job) -> int:
        return int(job.data)

    async def scripts() -> int:
        stats: dict[str, Any] = await client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))

    await queue.add_bulk(("n", n) for n in range(1000))
    before = await scripts()
    worker = Worker(queue, process, concurrency=100)
    heard = Heard(worker, "completed")
    async with worker:
        await heard.wait(1000)
    assert await scripts() - before < 150
    assert await queue.get_job_counts("completed", "waiting") == {"completed": 1000, "waiting": 0}


async def test_a_job_costs_one_call_while_others_wait(queue: Queue, client: Client) -> None:
    """At a concurrency of one: its end and the next fetch are the same call."""

    async def process(job: Job) -> None: ...

    async def scripts() -> int:
        stats: dict[str, Any] = await client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))

    await queue.add_bulk(("n", n) for n in range(100))
    before = await scripts()
    worker = Worker(queue, process)
    heard = Heard(worker, "completed")
    async with worker:
        await heard.wait(100)
    assert await scripts() - before < 110


# Attempts


async def fails_until(last: int, queue: Queue, **options: Any) -> tuple[Job[Any], list[tuple[Any, ...]]]:
    """Run a job that fails until its attempt `last`; what the worker told of its attempts."""

    async def process(job: Job) -> str:
        if job.attempts_started < last:
            raise ValueError(f"boom {job.attempts_started}")
        return "at last"

    strategy = options.pop("backoff_strategy", None)
    job = await queue.add("flaky", **options)
    worker = Worker(queue, process, backoff_strategy=strategy)
    heard = Heard(worker, "retried", "failed", "completed")
    async with worker:
        await ended(job)
    await job.refresh()
    return job, heard.told


async def test_a_short_queue_is_shared(server_url: str, prefix: str) -> None:
    """Two idle workers with room for all of some jobs get a part each."""
    async with Queue("short", connection=server_url, prefix=prefix) as queue:
        ran: dict[str, int] = {"a": 0, "b": 0}
        everything = asyncio.Event()

        def worker(name: str) -> Worker:
            async def process(job: Job) -> None:
                ran[name] += 1
                if sum(ran.values()) == 40:
                    everything.set()
                await everything.wait()

            return Worker(queue, process, concurrency=100)

        async with worker("a"), worker("b"):
            await until("two blocked workers", lambda: _blocked(queue, 2))
            await queue.add_bulk([("n", n) for n in range(40)])
            async with within("all jobs to begin"):
                await everything.wait()
    assert min(ran.values()) >= 8


async def _blocked(queue: Queue, count: int) -> bool:
    rows = await queue.connection.client.client_list()
    return sum(row["cmd"] == "bzpopmin" for row in rows) >= count


async def test_without_options_there_is_one_attempt(queue: Queue, client: Client) -> None:
    """It fails for good: reason, trace, and the event that says that no attempt is left."""
    job, told = await fails_until(2, queue)

    assert [event for event, *_ in told] == ["failed"]
    assert (job.failed_reason, job.attempts_made, await job.get_state()) == ("boom 1", 1, "failed")
    assert job.stacktrace[0].startswith("Traceback")
    assert job.stacktrace[0].rstrip().endswith("ValueError: boom 1")
    # It begins where the processor does.
    assert ", in process" in job.stacktrace[0].splitlines()[1]
    assert "toril" not in job.stacktrace[0].replace(__file__, "")
    assert "failed 1" in await events(client, queue)
    assert "retries-exhausted 1" in await events(client, queue)


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (None, [0, 0, 0]),
        (Fixed(0.03), [30, 30, 30]),
        (0.02, [20, 20, 20]),
        (Exponential(0.02), [20, 40, 80]),
    ],
)
async def test_attempts_wait_as_they_are_told(
    queue: Queue, client: Client, backoff: Any, waits: list[int]
) -> None:
    """Four attempts, the waits between them, and all their traces; no `failed` in between."""
    options = {} if backoff is None else {"backoff": backoff}

    job, told = await fails_until(4, queue, attempts=4, **options)

    assert [delay for event, _, _, delay in told[:-1] if event == "retried"] == waits
    assert told[-1][0] == "completed"
    assert (job.attempts_made, job.attempts_started, job.return_value) == (4, 4, "at last")
    # The last failure stays on record.
    assert job.failed_reason == "boom 3"
    assert [trace.rstrip()[-6:] for trace in job.stacktrace] == ["boom 1", "boom 2", "boom 3"]
    assert await events(client, queue, "failed", "retries-exhausted") == []


async def test_jitter_shortens_the_wait(queue: Queue) -> None:
    """Half of it left to chance: between half and all."""
    _, told = await fails_until(4, queue, attempts=4, backoff=Fixed(0.1, jitter=0.5))

    assert all(50 <= delay <= 100 for event, *_, delay in told if event == "retried")


async def test_a_strategy_of_ones_own_decides(queue: Queue) -> None:
    """It is told how many attempts were made, the type, the error and the job; and may be async."""
    asked: list[tuple[Any, ...]] = []

    async def strategy(made: int, kind: str, error: BaseException, job: Job[Any]) -> timedelta:
        asked.append((made, kind, str(error), job.id))
        return timedelta(milliseconds=10 * made)

    job, told = await fails_until(3, queue, attempts=5, backoff=Custom("mine"), backoff_strategy=strategy)

    assert asked == [(1, "mine", "boom 1", job.id), (2, "mine", "boom 2", job.id)]
    assert [delay for event, *_, delay in told if event == "retried"] == [10, 20]


async def test_a_strategy_can_stop(queue: Queue) -> None:
    """`STOP`: the job has failed, with attempts left, so nothing says that they are used up."""

    def strategy(made: int, *_: Any) -> Any:
        return STOP if made == 2 else 0

    job, told = await fails_until(9, queue, attempts=9, backoff=Custom("mine"), backoff_strategy=strategy)

    assert [event for event, *_ in told] == ["retried", "failed"]
    assert (job.attempts_made, await job.get_state()) == (2, "failed")


async def test_a_strategy_that_fails_does_not_cost_the_job(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the job tried again at once; as where there is no strategy at all."""

    def strategy(made: int, *_: Any) -> Any:
        raise RuntimeError("no idea")

    for given, says in ((strategy, "the backoff strategy raised"), (None, "is known to no strategy")):
        job, _ = await fails_until(2, queue, attempts=2, backoff=Custom("mine"), backoff_strategy=given)

        assert job.return_value == "at last"
        assert says in caplog.text


async def test_what_cannot_be_mended_is_not_tried_again(queue: Queue, client: Client) -> None:
    """`UnrecoverableError` fails the job with attempts left."""

    async def process(job: Job) -> None:
        raise UnrecoverableError("no such customer")

    job = await queue.add("mail", attempts=5)
    async with Worker(queue, process):
        (error,) = await ended(job)
    assert isinstance(error, JobFailedError)
    assert error.failed_reason == "no such customer"
    await job.refresh()
    assert job.attempts_made == 1
    assert await events(client, queue, "retries-exhausted") == []


@pytest.mark.parametrize("kind", ["seconds", "timedelta", "datetime"])
async def test_a_job_can_ask_to_run_later(queue: Queue, client: Client, kind: str) -> None:
    """`DelayedError`: no attempt is counted, nothing has failed, and the job runs at that time."""
    starts: list[float] = []

    async def process(job: Job) -> str:
        starts.append(time.time())
        if len(starts) == 1:
            await job.update_data({"step": 2})
            later: dict[str, datetime | timedelta | float] = {
                "seconds": 0.15,
                "timedelta": timedelta(milliseconds=150),
                "datetime": datetime.now() + timedelta(milliseconds=150),
            }
            raise DelayedError(later[kind])
        return str(job.data["step"])

    job = await queue.add("steps")
    async with Worker(queue, process):
        assert await ended(job) == ["2"]
    await job.refresh()
    assert (job.attempts_made, job.attempts_started, job.failed_reason) == (1, 2, None)
    assert 0.145 <= starts[1] - starts[0] < 1
    assert await events(client, queue, "delayed", "failed") == [f"delayed {job.id}"]


async def test_a_deferred_failure_fails_without_a_run(queue: Queue, client: Client) -> None:
    """What stalled too often is failed by the next worker, with the text that stands in the record."""
    job = await queue.add("mail", attempts=5)
    await client.hset(queue.keys.job(job.id), "defa", "job stalled more than allowable limit")

    async def process(job: Job) -> None:
        pytest.fail("it ran")

    async with Worker(queue, process):
        (error,) = await ended(job)
    assert error.failed_reason == "job stalled more than allowable limit"
    stands = await record(client, job)
    assert "defa" not in stands
    assert await events(client, queue, "active", "failed", "retries-exhausted") == ["active 1", "failed 1"]


async def test_starts_can_be_limited(queue: Queue) -> None:
    """However a job's starts ended: beyond the limit it fails for good."""
    runs = 0

    async def process(job: Job) -> None:
        nonlocal runs
        runs += 1
        raise DelayedError(0)

    job = await queue.add("loop", attempts=5)
    async with Worker(queue, process, max_started_attempts=3):
        (error,) = await ended(job)
    assert (runs, error.failed_reason) == (3, "job started more than allowable limit")


async def test_reasons_say_something(queue: Queue) -> None:
    """The message; with its type where the message says little; cut where it is endless."""
    errors = [ValueError("plain"), KeyError("key"), ValueError(), RuntimeError("x" * 100_000)]

    async def process(job: Job) -> None:
        raise errors[job.data]

    jobs = await queue.add_bulk(("n", n) for n in range(4))
    async with Worker(queue, process):
        reasons = [error.failed_reason for error in await ended(*jobs)]
    assert reasons[:3] == ["plain", "KeyError: 'key'", "ValueError"]
    assert len(reasons[3]) < 5_000


@pytest.mark.parametrize(("limit", "kept"), [(2, ["boom 3", "boom 4"]), (0, [])])
async def test_only_the_newest_traces_are_kept(queue: Queue, limit: int, kept: list[str]) -> None:
    """`stack_trace_limit`."""
    job, _ = await fails_until(5, queue, attempts=5, stack_trace_limit=limit)

    assert [trace.rstrip()[-6:] for trace in job.stacktrace] == kept


async def test_long_traces_are_cut_in_the_middle(queue: Queue) -> None:
    """Beginning and end stay."""

    async def process(job: Job) -> None:
        raise ValueError("y" * 50_000 + "the end")

    job = await queue.add("long")
    async with Worker(queue, process):
        await ended(job)
    await job.refresh()
    (trace,) = job.stacktrace
    assert len(trace) < 20_000
    assert trace.startswith("Traceback")
    assert trace.rstrip().endswith("the end")


# What stays of finished jobs


@pytest.mark.parametrize(
    ("of_job", "of_worker", "kept"),
    [
        ({}, {}, 5),
        ({"remove_on_complete": True}, {}, 0),
        ({"remove_on_complete": 2}, {}, 2),
        ({}, {"remove_on_complete": 3}, 3),
        ({"remove_on_complete": False}, {"remove_on_complete": True}, 5),
        ({"remove_on_complete": 1}, {"remove_on_complete": True}, 1),
    ],
)
async def test_retention(queue: Queue, client: Client, of_job: Any, of_worker: Any, kept: int) -> None:
    """The job's own rule, else the worker's, else all is kept; what goes, goes with its record."""

    async def process(job: Job) -> None:
        await job.log("row")

    for n in range(5):
        await queue.add("n", n, **of_job)
    worker = Worker(queue, process, **of_worker)
    heard = Heard(worker, "completed")
    async with worker:
        await heard.wait(5)
    assert await queue.get_job_counts("completed") == {"completed": kept}
    stored = [key async for key in client.scan_iter(match=f"{queue.keys.base}[0-9]*")]
    assert len(stored) == 2 * kept


# Listeners


async def test_a_listener_added_meanwhile_is_not_told_of_the_same_event(queue: Queue) -> None:
    """So one that adds another each time does not go on for ever."""
    told: list[str] = []
    worker = Worker(queue, lambda job: job.name)

    def again(*_: Any) -> None:
        told.append("completed")
        if len(told) < 100:
            worker.on("completed", again)

    worker.on("completed", again)
    job = await queue.add("once")
    async with worker:
        await ended(job)
    assert told == ["completed"]


async def test_listeners_are_told(queue: Queue) -> None:
    """Sync and async, with what belongs to each event."""
    told: list[tuple[Any, ...]] = []

    async def process(job: Job) -> str:
        await job.update_progress(50)
        if job.name == "bad":
            raise ValueError("boom")
        return "fine"

    worker = Worker(queue, process)
    worker.on("ready", lambda: told.append(("ready",)))
    worker.on("active", lambda job: told.append(("active", job.name)))
    worker.on("progress", lambda job, value: told.append(("progress", job.name, value)))

    @worker.on("completed")
    async def completed(job: Job, value: Any) -> None:
        await asyncio.sleep(0)
        told.append(("completed", job.name, value, job.return_value))

    @worker.on("failed")
    def failed(job: Job, reason: str) -> None:
        told.append(("failed", job.name, reason))

    worker.on("closed", lambda: told.append(("closed",)))
    jobs = [await queue.add("good"), await queue.add("bad")]
    async with worker:
        await ended(*jobs)
    assert sorted(told) == sorted(
        [
            ("ready",),
            ("active", "good"),
            ("progress", "good", 50),
            ("completed", "good", "fine", "fine"),
            ("active", "bad"),
            ("progress", "bad", 50),
            ("failed", "bad", "boom"),
            ("closed",),
        ]
    )
    assert told[0] == ("ready",)
    assert told[-1] == ("closed",)


async def test_a_listener_that_raises_hurts_nobody(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; other listeners and the job are not concerned."""
    told: list[str] = []

    async def process(job: Job) -> None: ...

    worker = Worker(queue, process)

    @worker.on("completed")
    def bad(job: Job, value: Any) -> None:
        raise ValueError("sync listener")

    @worker.on("completed")
    async def bad_too(job: Job, value: Any) -> None:
        raise ValueError("async listener")

    worker.on("completed", lambda job, value: told.append(job.id))
    async with worker:
        await ended(await queue.add("a"), await queue.add("b"))
    assert told == ["1", "2"]
    assert "sync listener" in caplog.text
    assert "async listener" in caplog.text


def test_an_event_that_does_not_exist() -> None:
    """The error has those that do."""
    worker = Worker("q", lambda job: None)
    event: Any = "complete"
    with pytest.raises(ConfigurationError, match="no event 'complete'; there are active, closed"):
        worker.on(event, print)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"lock_duration": 0}, "lock_duration"),
        ({"lock_duration": 5, "lock_renew_time": 6}, "lock_renew_time must be shorter"),
        ({"stalled_interval": -1}, "stalled_interval"),
        ({"max_stalled_count": -1}, "max_stalled_count"),
        ({"drain_delay": 0}, "drain_delay"),
        ({"name": "with space"}, "name"),
        ({"limiter": (0, 5)}, "limiter"),
        ({"limiter": (5, 0)}, "limiter"),
        ({"grace": -1}, "grace"),
        ({"remove_on_complete": "all"}, "remove_on_complete"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], says: str) -> None:
    """When the worker is made; the error names queue and option."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        Worker("q", print, **options)
    if says != "remove_on_complete":
        assert "queue 'q'" in str(caught.value)


def test_a_worker_needs_something_to_run() -> None:
    """A name alone has no processors; something that cannot be called is none."""
    with pytest.raises(ConfigurationError, match="needs a function"):
        Worker("q")
    nothing: Any = "process"
    with pytest.raises(ConfigurationError, match="must be a function"):
        Worker("q", nothing)
    with pytest.raises(ConfigurationError, match="has a connection"):
        Worker(Queue("q"), print, prefix="x")


async def test_a_worker_runs_once_at_a_time(queue: Queue) -> None:
    """A second `run` is refused; after the end it can run again."""

    async def process(job: Job) -> str:
        return "ran"

    worker = Worker(queue, process)
    for _ in range(2):
        async with worker:
            with pytest.raises(ConfigurationError, match="running already"):
                await worker.run()
            assert worker.is_running
            assert await ended(await queue.add("a")) == ["ran"]
        assert not worker.is_running


async def test_a_start_is_stamped_when_the_server_can_be_told(
    queue: Queue, server_url: str, clock: TurnedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has to connect first, which may take seconds, reads the clock after that."""

    async def connect(lane: Lane) -> Wire:
        wire = await real(lane)
        if is_for_fetching(lane):
            clock.turn(60)
        return wire

    def is_for_fetching(lane: Lane) -> bool:
        return lane._name is None

    real, began_ms = Lane._connect, clock.now_ms()
    job = await queue.add("a")
    async with Queue(queue.name, connection=server_url, prefix=queue.prefix, clock=clock) as turned:
        await turned.connection.learn_time()
        monkeypatch.setattr(Lane, "_connect", connect)
        async with Worker(turned, lambda _: None):
            await ended(job)
    await job.refresh()
    assert (job.processed_on or 0) >= began_ms + 60_000


# Pausing


async def test_a_paused_queue_is_not_fetched_from(queue: Queue) -> None:
    """Running jobs go on; after `resume` the others run."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> str:
        started.set()
        await go_on.wait()
        return job.name

    running = await queue.add("running")
    async with Worker(queue, process, concurrency=5):
        async with within("the first start"):
            await started.wait()
        await queue.pause()
        waiting = await queue.add("waiting")
        go_on.set()
        assert await ended(running) == ["running"]
        assert await waiting.get_state() == "waiting"
        await queue.resume()
        assert await ended(waiting) == ["waiting"]


async def test_a_paused_worker_lets_others_work(queue: Queue, other_queue: Queue) -> None:
    """It fetches nothing, and takes no wake-up away from the others either."""

    def process_as(who: str) -> Any:
        async def process(job: Job) -> str:
            return who

        return process

    paused, other = (
        Worker(queue, process_as("paused"), drain_delay=60),
        Worker(other_queue, process_as("other"), drain_delay=60),
    )
    idle, other_idle = Heard(paused, "drained"), Heard(other, "drained")
    async with paused:
        await idle.wait()
        # It waits for the marker, and longer than the other: it would be served first.
        await until("the paused worker's wait", lambda: blocked(queue, 1))
        async with other:
            await other_idle.wait()
            await until("the other worker's wait", lambda: blocked(queue, 2))
            await paused.pause()
            for _ in range(4):
                assert await ended(await queue.add("a")) == ["other"]
            await other.pause()
            await paused.resume()
            assert await ended(await queue.add("a")) == ["paused"]


async def test_a_worker_that_stops_hands_its_wake_up_on(
    queue: Queue, other_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped just after it has taken the marker, it will not fetch; who waits beside it does, at once."""
    popped = asyncio.Event()

    async def block(fetching: Fetching, lane: Lane) -> bool:
        is_woken = await real(fetching, lane)
        if fetching._queue is queue:
            stopping.stop()
            # Until the stop has been heard.
            await asyncio.sleep(0.05)
            popped.set()
        return is_woken

    async def process(_: Job) -> str:
        return "other"

    real = Fetching._block
    monkeypatch.setattr(Fetching, "_block", block)
    stopping = Worker(queue, process, drain_delay=60)
    other = Worker(other_queue, process, drain_delay=60)
    run = asyncio.create_task(stopping.run(handle_signals=False))
    await until("the wait of the worker that will stop", lambda: blocked(queue, 1))
    async with other:
        await until("the other worker's wait", lambda: blocked(queue, 2))
        job = await queue.add("a")
        async with within("the marker"):
            await popped.wait()
        assert await ended(job, seconds=5) == ["other"]
        async with within("the end of the worker"):
            await run


async def blocked(queue: Queue, count: int) -> bool:
    clients = await queue.get_workers()
    return sum(client["cmd"].startswith("bzpopmin") for client in clients) == count


# Stopping


async def test_a_stopping_worker_lets_running_jobs_end(queue: Queue) -> None:
    """Within the grace; it fetches no other."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> str:
        started.set()
        await go_on.wait()
        return "ended"

    first, second = await queue.add("first"), await queue.add("second")
    worker = Worker(queue, process)
    run = asyncio.create_task(worker.run(handle_signals=False))
    async with within("the start"):
        await started.wait()
    worker.stop()
    go_on.set()
    async with within("the stop"):
        await run
    assert [await first.get_state(), await second.get_state()] == ["completed", "waiting"]


async def test_jobs_beyond_the_grace_are_handed_back_uncounted(queue: Queue, client: Client) -> None:
    """First in line, no attempt made, no lock, the processor cancelled; priorities stay."""
    cancelled: list[str] = []

    async def process(job: Job) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(job.name)
            raise

    jobs = [await queue.add("plain", attempts=2), await queue.add("prio", priority=3)]
    worker = Worker(queue, process, concurrency=2, grace=0.05)
    heard = Heard(worker, "active")
    async with worker:
        await heard.wait(2)
        later = await queue.add("later")
        low = await queue.add("low", priority=3)
    assert sorted(cancelled) == ["plain", "prio"]
    assert await queue.get_ids("waiting", ascending=True) == [jobs[0].id, later.id]
    assert await queue.get_ids("prioritized", ascending=True) == [jobs[1].id, low.id]
    for job in jobs:
        stands = await record(client, job)
        assert (stands.get("atm"), stands["ats"], stands.get("failedReason")) == (None, "1", None)
        assert not await client.exists(queue.keys.job(job.id) + ":lock")


async def test_a_second_stop_ends_the_grace(queue: Queue) -> None:
    """`stop(now=True)` while the worker waits for its jobs."""

    async def process(job: Job) -> None:
        await asyncio.sleep(60)

    job = await queue.add("a")
    worker = Worker(queue, process, grace=60)
    heard = Heard(worker, "active")
    run = asyncio.create_task(worker.run(handle_signals=False))
    await heard.wait()
    worker.stop()
    await asyncio.sleep(0)
    worker.stop(now=True)
    async with within("the stop"):
        await run
    assert await job.get_state() == "waiting"


async def test_a_job_that_was_just_fetched_is_handed_back(queue: Queue) -> None:
    """A stop between the fetch and the processor's first step loses no job, and is not slow."""

    async def process(job: Job) -> None:
        await asyncio.sleep(60 if job.name == "second" else 0)

    first, second = await queue.add("first"), await queue.add("second")
    worker = Worker(queue, process)
    # The call that reports the end of `first` brings `second` along.
    worker.on("completed", lambda job, value: worker.stop(now=True))
    async with within("the stop"):
        await worker.run(handle_signals=False)
    assert [await first.get_state(), await second.get_state()] == ["completed", "waiting"]
    await second.refresh()
    assert second.attempts_made == 0


async def test_a_fetch_that_is_on_its_way_when_the_worker_stops(queue: Queue, client: Client) -> None:
    """Its jobs are run or handed back: none is left behind as active."""
    await queue.add("a")
    ran: list[str] = []

    async def process(job: Job) -> None:
        ran.append(job.name)

    worker = Worker(queue, process)
    run = asyncio.create_task(worker.run(handle_signals=False))
    drained = Heard(worker, "drained")
    await drained.wait()
    await worker.pause()
    await queue.add("late")
    # A busy server: the fetch is sent, and its answer comes after the stop.
    busy = asyncio.create_task(client.eval(BUSY, 0, "10000000"))
    await asyncio.sleep(0.02)
    await worker.resume()
    await asyncio.sleep(0.05)
    worker.stop()
    async with within("the stop"):
        await run
    await busy
    assert (await queue.get_job_counts("active"))["active"] == 0
    assert ran in (["a"], ["a", "late"])


BUSY = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i % 7 end return n"


async def test_a_worker_stops_although_its_server_is_gone(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it could not report is left to the stalled check; it does not wait for ever."""
    monkeypatch.setattr("toril.worker._LAST_WORDS", 0.5)
    go_on = asyncio.Event()

    async def process(job: Job) -> None:
        await go_on.wait()

    with like(server) as own:
        async with Queue("q", connection=own.url) as queue:
            worker = Worker(queue, process, grace=0.2)
            heard = Heard(worker, "active")
            await queue.add("a")
            run = asyncio.create_task(worker.run(handle_signals=False))
            await heard.wait()
            own.kill()
            go_on.set()
            await asyncio.sleep(0.1)
            worker.stop()
            async with within("the stop"):
                await run


# Locks


async def test_a_blocked_event_loop_loses_no_job(
    queue: Queue, other_queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """The heartbeat has a thread of its own: a processor that sleeps in `async def` keeps its lock."""
    runs: list[str] = []

    async def process(job: Job) -> str:
        runs.append(job.id)
        time.sleep(2.6)  # noqa: ASYNC251 - the mistake that is tested
        return "done"

    async def never(job: Job) -> None:
        pytest.fail("somebody else ran it")

    job = await queue.add("blocks")
    stalled = Heard(watcher := Worker(other_queue, never, **SHORT), "stalled")
    thread = threading.Thread(target=lambda: asyncio.run(watch(watcher, over)))
    over = threading.Event()
    worker = Worker(queue, process, **SHORT)
    active = Heard(worker, "active")
    async with worker:
        await active.wait()
        thread.start()
        assert await ended(job) == ["done"]
    over.set()
    thread.join()
    assert runs == [job.id]
    assert stalled.told == []
    await job.refresh()
    assert (job.stalled_counter, job.attempts_started) == (0, 1)
    assert "event loop has been blocked" in caplog.text


async def watch(worker: Worker, over: threading.Event) -> None:
    """Run a worker in another thread, as another process would."""
    run = asyncio.create_task(worker.run(handle_signals=False))
    await asyncio.to_thread(over.wait)
    worker.stop()
    await run
    await worker.queue.close()


async def test_locks_are_kept_while_a_job_runs(queue: Queue, client: Client) -> None:
    """Beyond the lock's duration, for threads as for coroutines."""

    def process(job: Job) -> str:
        time.sleep(1.3)
        return "done"

    jobs = [await queue.add("slow") for _ in range(3)]
    async with Worker(queue, process, concurrency=3, lock_duration=0.6, stalled_interval=0.2):
        assert await ended(*jobs) == ["done"] * 3
    assert await events(client, queue, "stalled") == []


async def test_who_has_lost_the_lock_is_stopped_and_not_heard(queue: Queue, client: Client) -> None:
    """Its processor is cancelled, what it still writes is refused, and the job is as the new owner left it."""
    refused: list[type[BaseException]] = []
    started, over = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            for write in (job.update_progress(99), job.update_data({"x": 1}), job.log("late")):
                try:
                    await write
                except LockLostError as error:
                    refused.append(type(error))
            over.set()
            raise
        return "never"

    job = await queue.add("a", {"n": 1}, attempts=3)
    worker = Worker(queue, process, lock_duration=2, lock_renew_time=0.2, skip_stalled_check=True)
    heard = Heard(worker, "lock_lost", "completed", "failed", "retried")
    async with worker:
        async with within("the start"):
            await started.wait()
        await client.set(queue.keys.job(job.id) + ":lock", "another:1", px=60_000)
        before = await record(client, job)
        async with within("the cancellation"):
            await over.wait()
        await heard.wait()
    assert [(told[0], told[1].id) for told in heard.told] == [("lock_lost", job.id)]
    assert refused == [LockLostError] * 3
    assert await record(client, job) == before
    assert await client.get(queue.keys.job(job.id) + ":lock") == "another:1"
    assert await job.get_state() == "active"
    assert (await queue.get_job_logs(job.id)).count == 0


async def test_an_end_without_a_lock_is_refused(queue: Queue, client: Client) -> None:
    """A worker that renews nothing finds out at the end that another has the job; nothing of it counts."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> str:
        started.set()
        await go_on.wait()
        return "too late"

    job = await queue.add("a")
    worker = Worker(queue, process, skip_lock_renewal=True, skip_stalled_check=True)
    heard = Heard(worker, "lock_lost", "completed")
    async with worker:
        async with within("the start"):
            await started.wait()
        await client.set(queue.keys.job(job.id) + ":lock", "another's")
        go_on.set()
        await heard.wait()
        assert [told[0] for told in heard.told] == ["lock_lost"]
    assert "returnvalue" not in await record(client, job)


async def test_a_job_whose_worker_is_silent_is_run_by_another(
    queue: Queue, other_queue: Queue, client: Client
) -> None:
    """Taken back once its lock has run out, counted as stalled, not as an attempt."""

    async def process(job: Job) -> str:
        return "second run"

    job = await queue.add("a", attempts=2)
    silent = await Worker(other_queue, process, lock_duration=0.2).get_next_job()
    assert silent is not None
    worker = Worker(queue, process, **SHORT)
    heard = Heard(worker, "stalled")
    async with worker:
        assert await ended(job) == ["second run"]
    await job.refresh()
    assert (job.stalled_counter, job.attempts_made, job.attempts_started) == (1, 1, 2)
    assert heard.told == [("stalled", job.id)]
    assert await events(client, queue, "stalled") == [f"stalled {job.id}"]
    # The first worker's end is refused.
    with pytest.raises(Exception, match=job.id):
        await silent.move_to_completed("first run")
    await job.refresh()
    assert job.return_value == "second run"


async def test_a_job_that_stalls_too_often_fails(queue: Queue) -> None:
    """Beyond `max_stalled_count` it is failed without another run."""

    async def process(job: Job) -> None:
        pytest.fail("it ran")

    job = await queue.add("a", attempts=9)
    assert await Worker(queue, process, lock_duration=0.05).get_next_job() is not None
    async with Worker(queue, process, **SHORT, max_stalled_count=0):
        (error,) = await ended(job)
    assert error.failed_reason == "job stalled more than allowable limit"


# Faults of the connection


async def test_a_worker_survives_the_death_of_all_its_connections(queue: Queue, client: Client) -> None:
    """CLIENT KILL of everything: it consumes again, and what ran ends as if nothing had been."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> str:
        if job.name == "long":
            started.set()
            await go_on.wait()
        return job.name

    long = await queue.add("long", remove_on_complete=False)
    async with Worker(queue, process, concurrency=3, drain_delay=60):
        async with within("the start"):
            await started.wait()
        for n in range(3):
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            short = await queue.add("short", job_id=f"short-{n}")
            assert await ended(short) == ["short"]
        go_on.set()
        assert await ended(long) == ["long"]
    await long.refresh()
    assert (long.attempts_made, long.stalled_counter) == (1, 0)


async def test_a_worker_survives_the_restart_of_its_server(server: EmbeddedServer) -> None:
    """With its data and without the scripts: it goes on, and says so."""
    with like(server, "aof", appendfsync="always") as own:
        async with Queue("q", connection=own.url) as queue:
            go_on = asyncio.Event()

            async def process(job: Job) -> str:
                if job.name == "long":
                    await go_on.wait()
                return job.name

            long = await queue.add("long")
            worker = Worker(queue, process, concurrency=2)
            heard = Heard(worker, "active")
            async with worker:
                await heard.wait()
                await asyncio.to_thread(own.stop)
                await asyncio.sleep(0.3)
                await asyncio.to_thread(own.start)
                assert await ended(await queue.add("after", job_id="after")) == ["after"]
                go_on.set()
                assert await ended(long) == ["long"]
            await long.refresh()
            assert long.attempts_made == 1


async def test_a_worker_waits_for_its_server_to_come_up(server: EmbeddedServer) -> None:
    """It is started before the server is, tells of the error, and works once it can."""
    with like(server) as own:
        url = own.url
        own.stop()
        async with Queue("q", connection=url) as queue:

            async def process(job: Job) -> str:
                return "ran"

            worker = Worker(queue, process)
            heard, ready = Heard(worker, "error"), Heard(worker, "ready")
            async with worker:
                await heard.wait()
                assert "cannot reach" in str(heard.told[0][1])
                await asyncio.to_thread(own.start)
                await ready.wait()
                assert await ended(await queue.add("a")) == ["ran"]


async def test_a_server_that_forgets_its_scripts(queue: Queue, client: Client) -> None:
    """SCRIPT FLUSH in the middle of the work costs nothing."""

    async def process(job: Job) -> Any:
        if job.data % 10 == 0:
            await client.script_flush()
        return job.data

    jobs = await queue.add_bulk(("n", n) for n in range(50))
    async with Worker(queue, process, concurrency=4):
        assert await ended(*jobs) == list(range(50))


async def test_a_wrong_password_ends_the_start(server: EmbeddedServer) -> None:
    """That is a mistake in the settings; trying on would hide it."""
    with like(server, requirepass="right") as own:
        url = f"redis://:wrong@127.0.0.1:{own.port}"
        worker = Worker("q", print, connection=url)
        with pytest.raises(ConfigurationError, match="password"):
            async with within("the refusal"):
                await worker.run(handle_signals=False)
        assert not worker.is_running
        with pytest.raises(ConfigurationError, match="password"):
            async with within("the refusal"), Worker("q", print, connection=url):
                pytest.fail("the block is not entered")


async def test_a_silent_server_does_not_hold_up_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """`async with` waits to hear whether the worker is taken, but not for ever."""
    monkeypatch.setattr("toril.worker._FIRST_TRY", 0.05)
    asking: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda reader, writer: asking.append(writer), "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with within("the block, there and back"), Worker("q", print, connection=url) as worker:
        assert worker.is_running
        await until("the worker's question", lambda: asking)
        silent.close()
        for writer in asking:
            writer.close()


async def test_a_server_that_evicts_is_warned_about(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With the policy and what to set."""
    with like(server, maxmemory_policy="allkeys-lru") as own:
        worker = Worker("q", print, connection=own.url)
        ready = Heard(worker, "ready")
        async with worker:
            await ready.wait()
    (warning,) = [entry for entry in caplog.records if "evicts" in entry.message]
    assert warning.levelno == logging.WARNING
    assert "allkeys-lru" in warning.message
    assert "noeviction" in warning.message


async def test_workers_are_seen(queue: Queue) -> None:
    """By their blocking connections, named as Node names them."""
    async with Worker(queue, print, name="wk-7"), Worker(queue, print):
        await until("both workers in the list", lambda: seen(queue, 2))
        names = sorted(client["name"] for client in await queue.get_workers())
    assert names[0] == f"{queue.prefix}:dGVzdHM="
    assert names[1] == f"{queue.prefix}:dGVzdHM=:w:wk-7"
    await until("none in the list", lambda: seen(queue, 0))


async def seen(queue: Queue, count: int) -> bool:
    return len(await queue.get_workers()) == count


async def test_workers_of_a_loop_share_a_heartbeat(queue: Queue) -> None:
    """One thread and one connection renew the locks of all, with the settings of each."""
    over = asyncio.Event()

    async def process(job: Job) -> str:
        await over.wait()
        return "kept"

    slow = Worker(queue, process, lock_duration=60)
    quick = [Worker(queue, process, **SHORT) for _ in range(3)]
    renewed = [Heard(worker, "locks_renewed") for worker in quick]
    async with slow, quick[0], quick[1], quick[2]:
        jobs = [await queue.add("n") for _ in range(4)]
        async with within("renewals of each", 20):
            for heard in renewed:
                await heard.wait(2)
        assert sum("toril-heartbeat" in thread.name for thread in threading.enumerate()) == 1
        over.set()
        assert await ended(*jobs) == ["kept"] * 4


async def test_a_worker_leaves_nothing_running(queue: Queue) -> None:
    """After its end there are no tasks and no threads of it."""

    def process(job: Job) -> None: ...

    tasks = asyncio.all_tasks()
    async with Worker(queue, process, concurrency=5):
        await ended(*[await queue.add("n") for _ in range(20)])
    await until("the end of its tasks", lambda: asyncio.all_tasks() == tasks)
    await until(
        "the end of its threads",
        lambda: (
            not [
                thread
                for thread in threading.enumerate()
                if "toril-heartbeat" in thread.name or "toril-tests" in thread.name
            ]
        ),
    )


async def test_events_tell_what_a_worker_does(queue: Queue, server_url: str) -> None:
    """Another process hears each step, in order."""

    async def process(job: Job) -> int:
        await job.update_progress(50)
        return 7

    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix) as stream:
        job = await queue.add("a")
        async with Worker(queue, process):
            await ended(job)
        heard: list[tuple[str, Any]] = []
        async with within("drained"):
            async for event in stream:
                heard.append((event.name, event.value))
                if event.name == "drained":
                    break
    assert heard == [
        ("added", None),
        ("waiting", None),
        ("active", None),
        ("progress", 50),
        ("completed", 7),
        ("drained", None),
    ]
