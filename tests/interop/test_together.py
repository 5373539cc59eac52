"""A Node worker and a toril worker on one queue at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from toril import Job, NewJob, Queue, Worker

from .node import Node, NodeEvents, NodeQueue, NodeWorker

Json = Any


async def test_each_job_runs_once_on_either_side(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """Of 400 jobs of every kind from both sides, each runs exactly once, and both sides run some."""
    ran: list[str] = []

    async def work(job: Job) -> str:
        assert job.id is not None
        ran.append(job.id)
        await asyncio.sleep(0.001)
        return "python"

    script = {"*": [[["sleep", 1], ["return", "node"]]]}
    async with (
        NodeWorker(node, "tests", script, prefix=prefix, concurrency=3) as worker,
        Worker(queue, work, concurrency=3),
    ):
        for batch in range(10):
            await asyncio.gather(
                queue.add_bulk(
                    NewJob("work", {}, {"priority": i % 4, "delay": (i % 3) / 100, "lifo": i % 5 == 0})
                    for i in range(20)
                ),
                node_queue.call(
                    "addBulk",
                    [
                        {
                            "name": "work",
                            "data": {},
                            "opts": {"priority": i % 4, "delay": i % 3, "lifo": i % 5 == 0},
                        }
                        for i in range(20)
                    ],
                ),
            )
            await node_events.event("completed", times=40 * batch + 1)
        await node_events.event("completed", times=400)

    by_node = [event.job_id for event in worker.told("active")]
    assert Counter(ran + by_node) == Counter(str(number) for number in range(1, 401))
    assert ran
    assert by_node
    assert await node_queue.counts() == {"completed": 400}


async def test_attempts_move_between_the_sides(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """A job may fail in Node, fail in toril and succeed in Node: attempts and traces carry over."""
    hour = {"type": "fixed", "delay": 3_600_000}
    added = await node_queue.add("flaky", {"by": "node"}, attempts=3, backoff=hour)
    failing = {"*": [[["throw", {"message": "in node"}]]]}

    async def fail(job: Job) -> None:
        raise ValueError("in python")

    async with NodeWorker(node, "tests", failing, prefix=prefix) as worker:
        await worker.event("failed", added["id"])
    job = await queue.get_job(added["id"])
    assert job is not None
    await job.promote()
    async with Worker(queue, fail):
        await node_events.event("delayed", added["id"], times=2)
    await node_queue.on_job(added["id"], "promote")
    async with NodeWorker(node, "tests", {"*": [[["return", "at last"]]]}, prefix=prefix):
        await node_events.event("completed", added["id"])

    job = await queue.get_job(added["id"])
    assert job is not None
    assert (job.attempts_made, job.attempts_started, job.return_value) == (3, 3, "at last")
    assert [("in node" in trace, "in python" in trace) for trace in job.stacktrace] == [
        (True, False),
        (False, True),
    ]
