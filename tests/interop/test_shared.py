"""What both languages share on one queue beside its jobs: deduplication, limits, retries, metrics, telemetry."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, cast

import pytest

from tests.patience import ended, until
from toril import Deduplication, Job, NewJob, Queue, QueueEvents, Worker

from .node import Node, NodeEvents, NodeQueue, NodeWorker

Json = Any
Language = Literal["node", "python"]
HOUR = 3600


@pytest.fixture(params=["node", "python"])
def first(request: pytest.FixtureRequest) -> Language:
    """Who begins; the other goes on."""
    return cast("Language", request.param)


class Adder:
    """Adds deduplicated jobs, now in one language, now in the other."""

    def __init__(self, queue: Queue, node_queue: NodeQueue) -> None:
        self.queue = queue
        self.node_queue = node_queue

    async def add(self, by: Language, name: str, delay: int = 0, **how: Json) -> str:
        """Add a job, with Node's option names and times in seconds; return the answered id."""
        if by == "python":
            known = {"keepLastIfActive": "keep_last_if_active"}
            dedup = Deduplication("d", **{known.get(key, key): value for key, value in how.items()})
            job = await self.queue.add(name, {"by": by}, delay=delay, deduplication=dedup)
            return job.id
        if "ttl" in how:
            how["ttl"] *= 1000
        added = await self.node_queue.add(
            name, {"by": by}, delay=delay * 1000, deduplication={"id": "d", **how}
        )
        return str(added["id"])


@pytest.fixture
def adder(queue: Queue, node_queue: NodeQueue) -> Adder:
    return Adder(queue, node_queue)


def other(language: Language) -> Language:
    return "python" if language == "node" else "node"


@pytest.mark.parametrize(
    "how", [{}, {"ttl": HOUR}, {"ttl": HOUR, "extend": True}], ids=["simple", "ttl", "extend"]
)
async def test_what_one_added_drops_the_others(
    adder: Adder, node_events: NodeEvents, first: Language, how: dict[str, Json]
) -> None:
    """Each is answered with the job that stands, and both find its id."""
    assert [await adder.add(by, "work", **how) for by in (first, other(first), first)] == ["1", "1", "1"]
    await node_events.event("deduplicated", times=2)
    assert [event.args[0] for event in node_events.told("deduplicated")] == [
        {"jobId": "1", "deduplicationId": "d", "deduplicatedJobId": dropped} for dropped in ("2", "3")
    ]
    assert await adder.queue.get_deduplication_job_id("d") == "1"
    assert await adder.node_queue.call("getDeduplicationJobId", "d") == "1"
    assert await adder.node_queue.call("removeDeduplicationKey", "d") == 1
    assert await adder.add(other(first), "work", **how) == "4"


async def test_the_newer_takes_the_place_of_the_others(
    adder: Adder, node_events: NodeEvents, first: Language
) -> None:
    """A delayed job makes way, whoever added it; the event says so with its roles exchanged."""
    for number, by in enumerate((first, other(first), first), 1):
        assert await adder.add(by, "work", HOUR, ttl=HOUR, replace=True, extend=True) == str(number)
    await node_events.event("deduplicated", times=2)
    assert node_events.told("deduplicated")[-1].args[0] == {
        "jobId": "3", "deduplicationId": "d", "deduplicatedJobId": "2",
    }  # fmt: skip
    assert [job.id for job in await adder.queue.get_delayed()] == ["3"]


async def test_the_last_of_both_is_kept_while_one_runs(
    adder: Adder, node: Node, node_events: NodeEvents, prefix: str, first: Language
) -> None:
    """While a job runs in one language the other's is kept, and runs after it, in either."""
    how = {"keepLastIfActive": True}
    begun, go = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> str:
        begun.set()
        await go.wait()
        return str(job.data["by"])

    assert await adder.add(first, "work", **how) == "1"
    script = {"*": [[["gate", f"go-{prefix}"], ["return", "by node"]]]}
    worker = (
        NodeWorker(node, "tests", script, prefix=prefix) if first == "node" else Worker(adder.queue, process)
    )
    async with worker:
        await node_events.event("active", "1")
        assert await adder.add(other(first), "second", **how) == "1"
        assert await adder.add(other(first), "third", **how) == "1"
        if isinstance(worker, NodeWorker):
            await worker.open_gate(f"go-{prefix}")
        else:
            go.set()
        await node_events.event("completed", times=2)
    names = [job.name for job in await adder.queue.get_completed(ascending=True)]
    assert names == ["work", "third"]
    assert await adder.queue.get_deduplication_job_id("d") is None


async def test_a_global_concurrency_holds_for_both(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """Of two workers with room for four, in both languages, only three jobs run at once; each reads the limit."""
    await queue.set_global_concurrency(3)
    assert await node_queue.call("getGlobalConcurrency") == 3
    await queue.add_bulk(NewJob("work") for _ in range(40))

    async def process(job: Job) -> None:
        await asyncio.sleep(0.002)

    async with (
        NodeWorker(
            node, "tests", {"*": [[["sleep", 2]]]}, prefix=prefix, concurrency=2, drainDelay=0.1
        ) as worker,
        Worker(queue, process, concurrency=2, drain_delay=0.1),
    ):
        await node_events.event("completed", times=40)
    running, most = 0, 0
    for event in node_events.told():
        running += {"active": 1, "completed": -1}.get(event.name, 0)
        most = max(most, running)
    assert most == 3
    assert 0 < len(worker.told("completed")) < 40
    await node_queue.call("removeGlobalConcurrency")
    assert await queue.get_global_concurrency() is None


@pytest.mark.parametrize("limit", ["worker", "queue"])
async def test_a_rate_limit_counts_both_sides_starts(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str, limit: str
) -> None:
    """Two starts in 200 ms over both workers, be it the workers' limit or the queue's own."""
    if limit == "queue":
        await node_queue.call("setGlobalRateLimit", 2, 200)
        assert await queue.get_global_rate_limit() == (2, 0.2)
    nodes = {"limiter": {"max": 2, "duration": 200}} if limit == "worker" else {}
    torils: tuple[int, float] | None = (2, 0.2) if limit == "worker" else None
    await queue.add_bulk(NewJob("work") for _ in range(8))

    async def process(job: Job) -> None: ...

    async with (
        NodeWorker(node, "tests", {"*": [[]]}, prefix=prefix, **nodes),
        Worker(queue, process, limiter=torils),
    ):
        await node_events.event("completed", times=8)
    started = sorted(job.processed_on or 0 for job in await queue.get_completed())
    # Four windows: whatever ran when, the last began three windows after the first. A ms for rounding.
    assert started[-1] - started[0] >= 3 * 200 - 5


async def test_attempts_are_counted_over_both(
    node: Node, queue: Queue, node_events: NodeEvents, prefix: str
) -> None:
    """With a worker of each, 30 jobs fail twice, wait their backoff, and succeed, wherever each attempt runs."""
    await queue.add_bulk(NewJob("flaky", None, {"attempts": 3, "backoff": 0.02}) for _ in range(30))

    async def process(job: Job) -> str:
        if job.attempts_started < 3:
            raise ValueError("in python")
        return "python"

    throw = [["throw", {"message": "in node"}]]
    async with (
        NodeWorker(node, "tests", {"*": [throw, throw, [["return", "node"]]]}, prefix=prefix, concurrency=2),
        Worker(queue, process, concurrency=2),
    ):
        await node_events.event("completed", times=30)
    jobs = await queue.get_completed()
    assert {(job.attempts_made, job.attempts_started, len(job.stacktrace)) for job in jobs} == {(3, 3, 2)}
    reasons = {("in node" in trace) for job in jobs for trace in job.stacktrace}
    assert reasons == {True, False}


async def test_a_job_cancelled_in_one_goes_on_in_the_other(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str, first: Language
) -> None:
    """The cancelled attempt counts as failed, and the next runs in the other language."""
    job = await queue.add("work", attempts=2)

    async def process(job: Job) -> str:
        if job.attempts_started == 1:
            await asyncio.Event().wait()
        return "python"

    script = {"*": [[["until-cancelled"]], [["return", "node"]]]}
    node_worker = NodeWorker(node, "tests", script, prefix=prefix)
    torils_worker = Worker(queue, process)
    if first == "node":
        async with node_worker:
            await node_worker.event("active", job.id)
            await node_queue.call("pause")
            assert await node_worker.call("cancelJob", job.id) is True
            await node_events.event("waiting", job.id, times=2)
        await queue.resume()
        async with torils_worker:
            assert await ended(job) == ["python"]
    else:
        async with torils_worker:
            await node_events.event("active", job.id)
            await until("the job to run", lambda: torils_worker.is_running)
            await node_queue.call("pause")
            assert torils_worker.cancel_job(job.id)
            await node_events.event("waiting", job.id, times=2)
        await queue.resume()
        async with node_worker:
            assert await ended(job) == ["node"]
    await job.refresh()
    assert (job.attempts_made, job.attempts_started, len(job.stacktrace)) == (2, 2, 1)


async def test_metrics_add_up(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """Both workers count into the same metrics, and both clients read the same of them."""
    await queue.add_bulk(NewJob("bad" if number % 2 else "good") for number in range(20))

    async def process(job: Job) -> None:
        if job.name == "bad":
            raise ValueError

    script = {"bad": [[["throw", {"message": ""}]]], "*": [[]]}
    metrics = {"metrics": {"maxDataPoints": 10}}
    async with (
        NodeWorker(node, "tests", script, prefix=prefix, **metrics),
        Worker(queue, process, metrics_points=10),
    ):
        await node_events.event("completed", times=10)
        await node_events.event("failed", times=10)
    for state in ("completed", "failed"):
        seen = await node_queue.call("getMetrics", state)
        mine = await queue.get_metrics(state)
        assert seen["meta"] == {"count": 10, "prevTS": mine.prev_ts, "prevCount": mine.prev_count}
        assert mine.count == 10
        assert seen["data"] == mine.data


async def test_telemetry_is_carried_over(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """Trace contexts that Node stored stay with the job, its retries and the next runs of a scheduler."""
    context = {"metadata": '{"traceparent":"00-1-2-01"}', "omitContext": True}
    added = await node_queue.add("work", {}, telemetry=context, attempts=2)
    await node_queue.call(
        "upsertJobScheduler", "s", {"every": 60}, {"name": "tick", "opts": {"telemetry": context}}
    )

    async def process(job: Job) -> None:
        if job.attempts_started == 1 and job.name == "work":
            raise ValueError

    async with Worker(queue, process, name="torero"):
        await until("three runs and the job", lambda: _completed(queue, 4))
    for job_id in (added["id"], *[job.id for job in await queue.get_delayed()]):
        seen = await node_queue.job(str(job_id))
        assert seen is not None
        assert seen["opts"]["telemetry"] == context


async def _completed(queue: Queue, count: int) -> bool:
    return (await queue.get_job_counts("completed"))["completed"] >= count


async def test_both_see_all_workers(node: Node, queue: Queue, node_queue: NodeQueue, prefix: str) -> None:
    """With a named worker of each language, both list the same two names."""

    async def process(job: Job) -> None: ...

    async with (
        NodeWorker(node, "tests", {"*": [[]]}, prefix=prefix, name="picador"),
        Worker(queue, process, name="torero"),
    ):

        async def both() -> bool:
            return len(await queue.get_workers()) == len(await node_queue.call("getWorkers")) == 2

        await until("two workers", both)
        mine = sorted(worker["name"] for worker in await queue.get_workers())
        theirs = sorted(worker["rawname"] for worker in await node_queue.call("getWorkers"))
    assert mine == theirs
    assert [name.rpartition(":")[2] for name in mine] == ["picador", "torero"]


async def test_both_listeners_hear_the_same(
    server_url: str, node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """What both sides do to one queue is told to both with the same names, fields and order."""

    async def process(job: Job) -> Json:
        await job.update_progress(50)
        if job.name == "bad":
            raise ValueError("broken")
        return {"ok": True}

    await node_queue.add("delayed", {}, delay=1000 * HOUR, jobId="late")
    late = await queue.get_job("late")
    assert late is not None
    await late.change_delay(2 * HOUR)
    await late.promote()
    await queue.add("bad", job_id="bad", attempts=2)
    await node_queue.add("bad", {}, jobId="bad")
    async with Worker(queue, process):
        await node_events.event("failed", "bad")
        await node_events.event("drained")
    bad = await queue.get_job("bad")
    assert bad is not None
    await bad.retry()
    async with NodeWorker(node, "tests", {"*": [[["progress", [1]], ["return", None]]]}, prefix=prefix):
        await node_events.event("completed", "bad")
    await node_queue.call("remove", "bad")
    await queue.clean(0, 0, "completed")
    await node_events.event("cleaned")

    async with QueueEvents("tests", connection=server_url, prefix=prefix, last_event_id="0") as events:
        mine = await events.read(block_ms=10)
    told = [(event.name, event.args[0]) for event in node_events.told() if event.args]
    for event, (name, first_argument) in zip(mine, told, strict=True):
        # An event without fields has only its id.
        fields = first_argument if isinstance(first_argument, dict) else {}
        assert (event.name, set(event.fields)) == (name, set(fields))
        assert {key: text for key, text in event.fields.items() if key not in CONVERTED} == {
            key: value for key, value in fields.items() if key not in CONVERTED
        }
        assert event.value == fields.get({"completed": "returnvalue", "progress": "data"}.get(name, ""))
    assert {event.name for event in mine} >= {
        "added", "waiting", "delayed", "duplicated", "active", "progress", "failed", "retries-exhausted",
        "drained", "completed", "removed", "cleaned",
    }  # fmt: skip


CONVERTED = ("returnvalue", "data", "delay", "attemptsMade", "count")
"""Fields that the listener in Node does not leave as text."""
