"""What BullMQ does that one would not expect (`docs/decisions/quirks.md`): kept where others rely on it or where it
does no harm, done better where it does. For each quirk a test of its own, which asks Node as well as toril.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import redis.asyncio

from toril import (
    Deduplication,
    FlowJob,
    FlowProducer,
    Job,
    JobOptions,
    NewJob,
    Queue,
    QueueEvents,
    SchedulerSlotError,
    Worker,
)
from toril.job_scheduler import plan_next_run

from .node import Node, NodeError, NodeEvents, NodeQueue, NodeWorker

Json = Any
HOUR_MS = 3_600_000


@dataclass
class Side:
    """One client on a queue of its own, with the moves that the quirks need, so that a test is said once."""

    name: Literal["node", "toril"]
    queue: Queue
    """As toril opens it: to look, on both sides."""
    node_queue: NodeQueue
    worker: NodeWorker
    client: Any  # redis-py's types mix sync and async answers

    @property
    def is_node(self) -> bool:
        return self.name == "node"

    def key(self, suffix: str) -> str:
        return self.queue.keys.key(suffix)

    async def ids(self, state: str) -> list[str]:
        key = self.key(state)
        if state in ("wait", "active", "paused"):
            return list(await self.client.lrange(key, 0, -1))
        return list(await self.client.zrange(key, 0, -1))

    async def marker(self) -> set[str]:
        return set(await self.ids("marker"))

    async def take(self) -> str | None:
        """Fetch a job without a loop; its lock's token is `t`."""
        if self.is_node:
            job = await self.worker.node.ask("take", worker=self.worker.handle, token="t")
            return None if job is None else str(job["id"])
        taken = await Worker(self.queue, lambda _: None).get_next_job(token="t")
        return None if taken is None else taken.id

    async def call(self, method: str, *args: Json, toril: Callable[[], Awaitable[Json]]) -> Json:
        """Call Node's method, or await toril's."""
        return await self.node_queue.call(method, *args) if self.is_node else await toril()

    async def on_job(
        self, job_id: str, method: str, *args: Json, toril: Callable[[], Awaitable[Json]]
    ) -> Json:
        return await self.node_queue.on_job(job_id, method, *args) if self.is_node else await toril()

    async def job(self, job_id: str) -> Job:
        job = await self.queue.get_job(job_id)
        assert job is not None
        return job

    async def stalled(self) -> None:
        """Two looks at silent workers, some time apart."""
        for _ in range(2):
            await self.client.delete(self.key("stalled-check"))
            if self.is_node:
                await self.worker.node.ask("stalled", worker=self.worker.handle)
            else:
                await self.queue.scripts.move_stalled_jobs_to_wait(self.queue.clock.now_ms(), 1, 30_000)

    async def events(self, job_id: str | None = None) -> list[dict[str, str]]:
        entries = await self.client.xrange(self.key("events"))
        return [fields for _, fields in entries if job_id in (None, fields.get("jobId"))]


@pytest.fixture(params=["node", "toril"])
async def side(
    request: pytest.FixtureRequest,
    node: Node,
    queue: Queue,
    node_queue: NodeQueue,
    client: redis.asyncio.Redis,
    prefix: str,
) -> AsyncIterator[Side]:
    async with NodeWorker(node, "tests", None, prefix=prefix) as worker:
        yield Side(request.param, queue, node_queue, worker, client)


# --- kept -------------------------------------------------------------------------------------


async def test_a_parent_set_free_by_a_removal_ignores_its_delay_and_priority(side: Side) -> None:
    """DETACH: the parent whose last child is removed is the next to run, whatever its options say."""
    await side.queue.add("ahead", job_id="ahead")
    producer = FlowProducer(connection=side.queue.connection, prefix=side.queue.prefix)
    options = JobOptions(job_id="parent", priority=5, delay=60)
    leaf = FlowJob("leaf", "tests", options=JobOptions(job_id="leaf"))
    await producer.add(FlowJob("parent", "tests", options=options, children=[leaf]))

    await side.call("remove", "leaf", toril=lambda: side.queue.remove("leaf"))
    assert await side.ids("wait") == ["ahead", "parent"]
    assert await side.ids("prioritized") == await side.ids("delayed") == []


async def test_a_stalled_job_comes_back_without_its_priority(side: Side) -> None:
    """Stalled check: it has waited long enough, and is the next to run."""
    await side.queue.add("a", job_id="a", priority=9)
    await side.take()
    await side.queue.add("b", job_id="b")
    await side.client.delete(side.key("a:lock"))
    await side.stalled()
    assert (await side.ids("wait"), await side.ids("prioritized")) == (["b", "a"], [])
    assert (await side.client.hget(side.key("a"), "priority")) == "9"


async def test_bulk_retry_and_promote_ignore_priority_and_leave_the_delay(side: Side) -> None:
    """Bulk moves put all into one line; `delay` still tells what was asked."""
    await side.queue.add("a", job_id="a", priority=9, delay=60)
    await side.call("promoteJobs", toril=lambda: side.queue.promote_jobs())
    assert (await side.ids("wait"), await side.ids("prioritized")) == (["a"], [])
    assert await side.client.hget(side.key("a"), "delay") == "60000"
    await side.take()
    await side.client.delete(side.key("a:lock"), side.key("active"))
    await side.client.zadd(side.key("failed"), {"a": 1})
    await side.call("retryJobs", toril=lambda: side.queue.retry_jobs())
    assert (await side.ids("wait"), await side.ids("prioritized")) == (["a"], [])


async def test_promotion_ignores_lifo(side: Side) -> None:
    """Whether by hand or by its time, a delayed job joins the end of the line."""
    now_ms = side.queue.clock.now_ms()
    await side.queue.add("b", job_id="b", delay=60, lifo=True)
    await side.queue.add("c", job_id="c", timestamp=now_ms - 10_000, delay=5, lifo=True)
    for job_id in ("first", "second"):
        await side.queue.add("x", job_id=job_id)
    job = await side.job("b")
    await side.on_job("b", "promote", toril=lambda: job.promote())
    assert await side.ids("wait") == ["b", "second", "first"]
    assert await side.take() == "first"
    assert await side.ids("wait") == ["c", "b", "second"]


async def test_a_call_promotes_so_many(side: Side) -> None:
    """The next calls promote the rest, in the same order."""
    long_ago = side.queue.clock.now_ms() - 10_000
    options: list[NewJob] = [NewJob("x", {}, {"timestamp": long_ago, "delay": 5}) for _ in range(1002)]
    await side.queue.add_bulk(options)
    assert await side.take() == "1"
    assert len(await side.ids("wait")) == (999 if side.is_node else 249)
    assert await side.take() == "2"


async def test_a_job_put_before_its_equals_wakes_nobody(side: Side) -> None:
    """PRIO-FRONT writes no marker: the job was there before, and has had its own."""
    await side.queue.add("a", job_id="a", priority=3)
    await side.queue.add("b", job_id="b", priority=3)
    await side.client.delete(side.key("marker"))
    change = {"priority": 3, "lifo": True}
    job = await side.job("b")
    await side.on_job("b", "changePriority", change, toril=lambda: job.change_priority(3, lifo=True))
    assert await side.ids("prioritized") == ["b", "a"]
    assert await side.marker() == set()


async def test_the_queues_limit_has_the_workers_window(
    node: Node, queue: Queue, node_queue: NodeQueue, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Limiter: with both limits the queue's number counts, in the worker's time."""
    await queue.set_global_rate_limit(1, 0.05)
    left: list[float] = []
    for which in ("node", "toril"):
        await queue.add_bulk([NewJob("work"), NewJob("work")])
        if which == "node":
            limiter = {"max": 5, "duration": HOUR_MS}
            async with NodeWorker(node, "tests", None, prefix=prefix, limiter=limiter) as worker:
                await node.ask("take", worker=worker.handle, token="t")
        else:
            await Worker(queue, lambda _: None, limiter=(5, HOUR_MS / 1000)).get_next_job(token="t")
        left.append(await client.pttl(queue.keys.key("limiter")))
        await client.delete(queue.keys.key("limiter"))
    assert [HOUR_MS - 60_000 < ttl <= HOUR_MS for ttl in left] == [True, True]


async def test_a_scheduler_without_an_offset_starts_now(side: Side) -> None:
    """Interval scheduler: an offset of 0 is a value as any other, and means that none was given."""
    before = int(time.time() * 1000)
    for scheduler_id, offset in (("none", None), ("zero", 0)):
        if side.is_node:
            repeat = {"every": HOUR_MS, **({} if offset is None else {"offset": offset})}
            await side.node_queue.call("upsertJobScheduler", scheduler_id, repeat)
        else:
            await side.queue.upsert_job_scheduler(scheduler_id, every=3600, offset=offset)
    for scheduler in await side.queue.get_job_schedulers():
        assert 0 <= scheduler.next_ms - before < HOUR_MS
        assert scheduler.offset_ms == scheduler.next_ms % HOUR_MS
    assert len(await side.ids("wait")) == 2


# --- kept, since others rely on it ------------------------------------------------------------


async def test_the_line_is_consumed_from_its_right_end(side: Side) -> None:
    """Must not be fixed: who adds, in whatever language, pushes on the left."""
    for job_id in ("a", "b"):
        await side.queue.add("x", job_id=job_id)
    await side.queue.add("x", job_id="c", lifo=True)
    assert await side.ids("wait") == ["b", "a", "c"]
    assert [await side.take(), await side.take(), await side.take()] == ["c", "a", "b"]


async def test_an_active_job_is_said_to_have_waited(side: Side) -> None:
    """Must not be fixed: `prev` of `active` is `waiting`, also of a prioritized job, or one that was delayed."""
    now_ms = side.queue.clock.now_ms()
    await side.queue.add("x", job_id="a", priority=3)
    await side.queue.add("x", job_id="b", timestamp=now_ms - 10_000, delay=5)
    assert {await side.take(), await side.take()} == {"a", "b"}
    told = [event for event in await side.events() if event["event"] == "active"]
    assert [event["prev"] for event in told] == ["waiting", "waiting"]


async def test_a_delayed_event_tells_a_time(side: Side) -> None:
    """Must not be fixed: its `delay` is when the job is due, not for how long it waits."""
    at_ms = 1_900_000_000_000
    if side.is_node:
        await side.node_queue.add("x", {}, jobId="a", timestamp=at_ms, delay=5000)
    else:
        await side.queue.add("x", job_id="a", timestamp=at_ms, delay=5)
    (told,) = [event for event in await side.events("a") if event["event"] == "delayed"]
    assert told["delay"] == str(at_ms + 5000)


async def test_deduplicated_names_the_survivor_first(side: Side) -> None:
    """Must not be fixed: `jobId` is the job that stays, on a replacement the new one."""
    for replace in (False, True):
        dedup = Deduplication(f"d{replace}", replace=replace)
        for number in (1, 2):
            job_id = f"{replace}-{number}"
            if side.is_node:
                options = {"id": dedup.id, "replace": replace}
                await side.node_queue.add("x", {}, jobId=job_id, delay=HOUR_MS, deduplication=options)
            else:
                await side.queue.add("x", job_id=job_id, delay=3600, deduplication=dedup)
    told = [event for event in await side.events() if event["event"] == "deduplicated"]
    assert [(event["jobId"], event["deduplicatedJobId"]) for event in told] == [
        ("False-1", "False-2"),
        ("True-2", "True-1"),
    ]


async def test_a_start_wakes_the_next_worker_whatever_waits(side: Side) -> None:
    """Must not be fixed: the marker after each start is how a burst reaches many workers."""
    await side.queue.add("x", job_id="a")
    await side.client.delete(side.key("marker"))
    assert await side.take() == "a"
    assert await side.marker() == {"0"}


async def test_a_deferred_failure_is_left_to_the_next_worker(
    node: Node, queue: Queue, node_events: NodeEvents, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Must not be fixed: whoever picks up a job with `defa` fails it without running it."""
    ran: list[str] = []

    async def process(job: Job) -> None:
        ran.append(job.id)

    for which in ("node", "toril"):
        await queue.add("x", job_id=which, attempts=5)
        await client.hset(queue.keys.job(which), "defa", "child bull:kid:C2 failed")
        worker = (
            NodeWorker(node, "tests", {"*": [[]]}, prefix=prefix)
            if which == "node"
            else Worker(queue, process)
        )
        async with worker:
            failed = await node_events.event("failed", which)
        assert failed.args[0]["failedReason"] == "child bull:kid:C2 failed"
        assert await client.hget(queue.keys.job(which), "defa") is None
    assert ran == []


async def test_stalled_jobs_are_looked_for_once_in_an_interval(side: Side) -> None:
    """Must not be fixed: `stalled-check` keeps all other workers, of either language, from looking."""
    await side.queue.add("x", job_id="a")
    await side.take()
    await side.client.delete(side.key("a:lock"))
    await side.stalled()  # removes the key before each look
    assert await side.ids("wait") == ["a"]
    assert 0 < await side.client.pttl(side.key("stalled-check")) <= 30_000
    await side.take()
    await side.client.delete(side.key("a:lock"))
    await side.client.sadd(side.key("stalled"), "a")
    if side.is_node:
        await side.worker.node.ask("stalled", worker=side.worker.handle)
    else:
        await side.queue.scripts.move_stalled_jobs_to_wait(side.queue.clock.now_ms(), 1, 30_000)
    assert await side.ids("active") == ["a"]


# --- better -----------------------------------------------------------------------------------


async def test_draining_spares_a_schedulers_run_and_nothing_else(side: Side) -> None:
    """Drain: toril removes exact ids. Node trims as many from the wrong end, and loses the run."""
    for job_id in ("a", "b"):
        await side.queue.add("x", job_id=job_id)
    await side.queue.upsert_job_scheduler("s", every=3600)
    (run, *_) = await side.ids("wait")
    await side.call("drain", toril=lambda: side.queue.drain())
    left = await side.ids("wait")
    assert left == [run] if not side.is_node else left != [run]


async def test_an_upsert_while_paused_replaces_the_pending_run(side: Side) -> None:
    """Scheduler upsert while paused: toril finds the run in `wait`. Node leaves it, and makes a second one."""
    await side.queue.upsert_job_scheduler("s", every=3600)
    await side.queue.pause()
    await side.call(
        "upsertJobScheduler",
        "s",
        {"every": HOUR_MS},
        toril=lambda: side.queue.upsert_job_scheduler("s", every=3600),
    )
    runs = [*await side.ids("wait"), *await side.ids("delayed")]
    assert len(runs) == (2 if side.is_node else 1)


async def test_an_upsert_leaves_a_run_alone_that_was_promoted(side: Side) -> None:
    """Scheduler upsert: toril refuses the time of a run that has begun before it. Node adds the same job again."""
    pattern = "0 0 1 1 *"
    pending = await side.queue.upsert_job_scheduler("s", pattern=pattern)
    assert pending is not None
    await pending.promote()
    assert await side.take() == pending.id
    await plan_next_run(side.queue, await side.job(pending.id))
    try:
        await side.call(
            "upsertJobScheduler",
            "s",
            {"pattern": pattern, "tz": "UTC"},
            toril=lambda: side.queue.upsert_job_scheduler("s", pattern=pattern),
        )
    except SchedulerSlotError:
        assert not side.is_node
    assert await side.ids("active") == [pending.id]
    assert (pending.id in await side.ids("delayed")) == side.is_node


async def test_obliterating_leaves_no_parents_and_no_limit(side: Side, prefix: str) -> None:
    """Obliterate: toril takes jobs that wait for children in other queues, and `limiter`. Node leaves both."""
    producer = FlowProducer(connection=side.queue.connection, prefix=side.queue.prefix)
    await producer.add(
        FlowJob("p", "tests", options=JobOptions(job_id="p"), children=[FlowJob("c", "elsewhere")])
    )
    await side.client.set(side.key("limiter"), 5)
    await side.call("obliterate", toril=lambda: side.queue.obliterate())
    left = {key.removeprefix(f"{prefix}:tests:") for key in await side.client.keys(f"{prefix}:tests:*")}
    assert left == ({"p", "p:dependencies", "waiting-children", "limiter"} if side.is_node else set())


async def test_cleaning_compares_times_as_numbers(side: Side) -> None:
    """Clean: toril compares numbers. Node compares text, and takes a time of 14 digits for an old one."""
    for job_id, timestamp in (("old", 1_600_000_000_000), ("future", 10_000_000_000_000)):
        await side.queue.add("x", job_id=job_id)
        await side.client.hset(side.key(job_id), "timestamp", timestamp)
    await side.call("clean", 1000, 0, "wait", toril=lambda: side.queue.clean(1, 0, "waiting"))
    assert await side.ids("wait") == ([] if side.is_node else ["future"])


async def test_an_id_without_a_record_does_not_run(side: Side) -> None:
    """START: toril drops it. Node makes it active, as a job without a name."""
    await side.client.lpush(side.key("wait"), "ghost")
    await side.queue.add("x", job_id="real")
    first = await side.take()
    assert first == ("real" if not side.is_node else first)
    assert ("ghost" in await side.ids("active")) is side.is_node
    assert bool(await side.client.exists(side.key("ghost"))) is side.is_node


async def test_a_listener_misses_nothing_between_two_reads(
    server_url: str, queue: Queue, prefix: str
) -> None:
    """QueueEvents: toril resolves `$` once, so what happens before the first read answers is heard too."""
    async with QueueEvents("tests", connection=server_url, prefix=prefix) as events:
        await queue.add("x", job_id="a")
        assert [event.name for event in await events.read(block_ms=10)] == ["added", "waiting"]


async def test_orphans_are_removed_and_metrics_are_not(side: Side) -> None:
    """Remove orphaned: toril knows the metrics' keys. Node takes `metrics:failed` for a job, and deletes it."""
    await side.client.hset(side.key("metrics:failed"), "count", 5)
    await side.client.hset(side.key("ghost"), "name", "x")
    await side.call("removeOrphanedJobs", toril=lambda: side.queue.remove_orphaned_jobs())
    assert not await side.client.exists(side.key("ghost"))
    assert bool(await side.client.exists(side.key("metrics:failed"))) is not side.is_node


async def test_a_templates_bare_backoff_is_stored_as_an_object(side: Side) -> None:
    """Scheduler templates: toril writes one form from the start, which Node reads. Node writes a number first."""
    template = {"name": "t", "opts": {"attempts": 2, "backoff": 500}}
    await side.call(
        "upsertJobScheduler",
        "s",
        {"every": HOUR_MS},
        template,
        toril=lambda: side.queue.upsert_job_scheduler(
            "s", every=3600, name="t", options=JobOptions(attempts=2, backoff=0.5)
        ),
    )
    (run,) = await side.ids("wait")
    job = await side.job(run)
    fixed = {"type": "fixed", "delay": 500}
    assert job.options.raw["backoff"] == (500 if side.is_node else fixed)
    seen = await side.node_queue.job(run)
    assert seen is not None
    assert seen["opts"]["backoff"] == fixed
    assert job.options.attempts == 2


async def test_the_log_of_a_job_that_says_nothing_of_it_has_an_end(side: Side) -> None:
    """Logs: toril keeps the last 1,000 rows of either side. Node keeps all."""
    job = await side.queue.add("x", job_id="a")
    await side.client.rpush(side.key("a:logs"), *(f"row {n}" for n in range(1000)))
    count = await side.on_job("a", "log", "row 1000", toril=lambda: job.log("row 1000"))
    assert count == (1001 if side.is_node else 1000)
    assert await side.client.lindex(side.key("a:logs"), -1) == "row 1000"


async def test_an_end_without_a_lock_counts_while_nobody_else_has_the_job(side: Side) -> None:
    """Locks: toril takes one again that ran out. Node refuses the end, and the job stalls though its worker lives."""
    await side.queue.add("x", job_id="a")
    ours = None
    if side.is_node:
        await side.take()
    else:
        ours = await Worker(side.queue, lambda _: None).get_next_job(token="t")
    await side.client.delete(side.key("a:lock"))
    if ours is None:
        with pytest.raises(NodeError, match="Missing lock"):
            await side.worker.node.ask(
                "complete", worker=side.worker.handle, jobId="a", token="t", value="done"
            )
        assert await side.ids("active") == ["a"]
    else:
        await ours.move_to_completed("done")
        assert await side.ids("completed") == ["a"]


# --- the page ---------------------------------------------------------------------------------


def test_the_page_names_the_test_of_each_quirk() -> None:
    """Every test here is in a table of the page, and every test that the page names is here."""
    page = (Path(__file__).parents[2] / "docs" / "decisions" / "quirks.md").read_text()
    named = re.findall(r"`(test_[a-z_]+)` \|$", page, re.MULTILINE)
    here = [
        name
        for name in globals()
        if name.startswith("test_") and name != "test_the_page_names_the_test_of_each_quirk"
    ]
    assert sorted(named) == sorted(here)
