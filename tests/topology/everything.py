"""Everything that a program does with its server, by the role in which it does it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

from tests.patience import ended, until, within
from toril import (
    Connection,
    Custom,
    Deduplication,
    DelayedError,
    FlowJob,
    FlowProducer,
    Job,
    KeepJobs,
    Queue,
    QueueEvents,
    RateLimitError,
    WaitingChildrenError,
    WaitingError,
    Worker,
    find_queues,
)

__all__ = ["ROLES", "stage"]

Runs = set[str]


async def produce(connection: Connection, prefix: str) -> None:
    """Add jobs of all kinds, and wait for one."""
    queue = Queue("q", connection=connection, prefix=prefix)
    await queue.add("late", delay=0.01, attempts=3, backoff=0.01)
    await queue.add("first", priority=3)
    await queue.add("lifo", lifo=True)
    for _ in range(2):
        await queue.add("known", job_id="known", attempts=2)
    for dedup in (
        Deduplication("a"),
        Deduplication("b", ttl=60, extend=True),
        Deduplication("c", ttl=60, replace=True),
        Deduplication("d", ttl=60, reschedule=True),
        Deduplication("e", keep_last_if_active=True),
    ):
        for _ in range(2):
            await queue.add("one-of", delay=0.05, deduplication=dedup)
    await queue.add_bulk([("bulk", number) for number in range(5)])
    await queue.upsert_job_scheduler("tick", every=3600)
    await queue.upsert_job_scheduler("tick", every=1800)
    producer = FlowProducer(connection=connection, prefix=prefix)
    children: list[FlowJob] = [FlowJob("child", "q2") for _ in range(2)]
    ignored = FlowJob("bad", "q2", options={"ignore_dependency_on_failure": True})
    await producer.add(FlowJob("parent", "q", children=[*children, ignored]))
    fatal = FlowJob("bad", "q2", options={"fail_parent_on_failure": True})
    await producer.add(FlowJob("doomed", "q", children=[fatal]))
    for policy in ("continue_parent_on_failure", "remove_dependency_on_failure"):
        bad: Any = {policy: True}
        await producer.add(FlowJob("parent", "q", children=[FlowJob("bad", "q2", options=bad)]))


async def work(connection: Connection, prefix: str) -> None:
    """Run them, each once, in all the ways in which a job can go."""
    seen: Runs = set()

    async def process(job: Any) -> Any:
        is_again = job.name in seen
        seen.add(job.name)
        await job.update_progress(5)
        await job.log("row")
        if job.name in ("late", "bad") and (job.name == "bad" or not is_again):
            raise ValueError(job.name)
        if is_again:
            return job.name
        match job.name:
            case "bulk":
                raise WaitingError
            case "lifo":
                raise DelayedError(0.01)
            case "first":
                raise RateLimitError(0.01)
            case "parent":
                await job.get_children_values()
                raise WaitingChildrenError
            case "known":
                await job.update_data({"new": True})
                raise ValueError("again at once")
            case "awaited":
                # Long enough for its lock to be renewed.
                await asyncio.sleep(0.6)
            case _:
                pass
        return job.name

    queue = Queue("q", connection=connection, prefix=prefix)
    other = Queue("q2", connection=connection, prefix=prefix)
    await queue.add("last", attempts=2, backoff=Custom("mine"), remove_on_complete=KeepJobs(count=2, age=1))
    await queue.add("awaited")
    options: Any = {"lock_duration": 0.4, "stalled_interval": 0.1, "metrics_points": 10, "limiter": (1000, 1)}
    options["backoff_strategy"] = lambda *_: 0.01
    workers = [
        Worker(queue, process, name="one", concurrency=5, **options),
        Worker(other, process, concurrency=5, **options),
    ]
    # What the workers say: asking the queue would need rights that a worker can do without.
    left = Counter(
        {"awaited": 1, "bulk": 5, "child": 2, "first": 1, "known": 1, "last": 1, "late": 1, "lifo": 1}
    )
    left += Counter({"one-of": 5, "parent": 3, "tick": 1})
    for worker in workers:
        worker.on("completed", lambda job, _: left.subtract([job.name]))
    async with workers[0], workers[1]:
        await until("the end of all jobs", lambda: not +left)


async def listen(connection: Connection, prefix: str) -> None:
    """Wait for results, of jobs that have ended and of events that have been."""
    async with Queue("q", connection=connection, prefix=prefix) as queue:
        # As a program has it that has added the job: it reads nothing else of it.
        await ended(Job(queue, "known", {}))
    async with within("an event"), QueueEvents("q", connection=connection, prefix=prefix) as events:
        events.last_event_id = "0"
        async for event in events:
            if event.name == "completed":
                return


async def look(connection: Connection, prefix: str) -> None:
    """What a dashboard reads."""
    queue = Queue("q", connection=connection, prefix=prefix)
    await find_queues(connection, prefix)
    await queue.get_job_counts()
    jobs = await queue.get_jobs()
    for job in jobs[:5]:
        await job.get_state()
        await queue.get_job_logs(job.id)
        await job.get_dependencies()
    await queue.get_counts_per_priority([0, 3])
    await queue.get_workers()
    await queue.get_meta()
    await queue.get_metrics("completed")
    await queue.get_job_schedulers()
    await queue.is_paused()
    await queue.is_maxed()
    await queue.get_global_rate_limit()
    await queue.get_rate_limit_ttl()
    await queue.get_deduplication_job_id("a")


async def operate(connection: Connection, prefix: str) -> None:
    """What people do with a queue by hand."""
    queue = Queue("q", connection=connection, prefix=prefix)
    job = await queue.add("by-hand", delay=60)
    await job.change_delay(50)
    await job.change_priority(3)
    await job.promote()
    await job.change_priority(0)
    await job.update_data({"new": 1})
    await job.update_progress(1)
    await job.log("row")
    await job.clear_logs(1)
    await job.clear_logs()
    await job.remove()
    await queue.add("delayed", delay=60)
    await queue.promote_jobs()
    failed = await queue.get_jobs("failed")
    if failed:
        await failed[0].retry()
    await queue.retry_jobs()
    await queue.set_global_concurrency(3)
    await queue.remove_global_concurrency()
    await queue.set_global_rate_limit(3, 1)
    await queue.rate_limit(0.01)
    await queue.remove_rate_limit_key()
    await queue.remove_global_rate_limit()
    await queue.remove_deduplication_key("a")
    await queue.pause()
    await queue.resume()
    await queue.remove_job_scheduler("tick")
    await queue.remove_orphaned_jobs()
    await queue.trim_events(10)
    await queue.clean(0, state="completed")
    await queue.drain(delayed=True)
    for name in ("q", "q2"):
        await Queue(name, connection=connection, prefix=prefix).obliterate(force=True)


ROLES: Final = {
    "producer": produce, "worker": work, "listener": listen, "dashboard": look, "operator": operate,
}  # fmt: skip


async def stage(role: str, admin: Any, connection: Connection, prefix: str) -> None:
    """Make a role find what it works on, whoever has worked on it before."""
    if role == "worker":
        await admin.flushdb()
        await produce(connection, prefix)
