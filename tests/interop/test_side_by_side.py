"""What a team that moves from Node to toril leans on: typed jobs, clean stops, Node's housekeeping on toril's keys."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio

from toril import Job, Queue, Worker

from .node import Node, NodeEvents, NodeQueue, NodeWorker

Json = Any


async def test_a_typed_processor_takes_nodes_data_as_its_arguments(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """The fields of Node's object are the arguments; fields that are missing take their defaults."""

    @queue.processor("welcome")
    async def welcome(user_id: int, greeting: str = "hello") -> str:
        return f"{greeting} {user_id}"

    added = await node_queue.add("welcome", {"user_id": 7})

    async with Worker(queue):
        completed = await node_events.event("completed", added["id"])

    assert completed.args[0]["returnvalue"] == "hello 7"


async def test_data_that_does_not_fit_fails_a_typed_job_at_once(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """Node sees one failure, whose reason names the field, and no retry of what cannot fit."""

    @queue.processor("welcome")
    async def welcome(user_id: int) -> None: ...

    added = await node_queue.add("welcome", {"user_id": "seven"}, attempts=5)

    async with Worker(queue):
        failed = await node_events.event("failed", added["id"])

    assert "user_id" in failed.args[0]["failedReason"]
    read = await node_queue.job(added["id"])
    assert read is not None
    assert read["attemptsMade"] == 1


async def test_node_takes_the_arguments_of_a_typed_job(node: Node, queue: Queue, prefix: str) -> None:
    """A typed add stores the arguments as an object, which is the data of Node's job."""

    @queue.processor("welcome", attempts=2)
    async def welcome(user_id: int, greeting: str = "hello") -> dict[str, Json]:
        raise AssertionError("Node runs it")

    job = await welcome.add(7, greeting="hej")

    async with NodeWorker(node, "tests", {"welcome": [[]]}, prefix=prefix):
        assert await job.result(timeout=30) == {"user_id": 7, "greeting": "hej"}


async def test_a_job_that_a_stopping_worker_hands_back_runs_in_node(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """toril's worker stops without waiting for its job: Node runs it at once, as the first attempt."""
    is_running = asyncio.Event()

    async def work(job: Job) -> None:
        is_running.set()
        await asyncio.Event().wait()

    job = await queue.add("work", {"a": 1}, attempts=1)
    async with Worker(queue, work) as worker:
        await asyncio.wait_for(is_running.wait(), 30)
        worker.stop(now=True)
    assert await node_queue.call("getJobState", job.id) == "waiting"

    async with NodeWorker(node, "tests", {"*": [[]]}, prefix=prefix):
        assert await job.result(timeout=30) == {"a": 1}

    read = await node_queue.job(job.id)
    assert read is not None
    assert (read["attemptsMade"], read["attemptsStarted"], read["stalledCounter"]) == (1, 2, 0)
    assert read["stacktrace"] == []


@pytest.fixture
async def used_queue(queue: Queue, node_queue: NodeQueue, node_events: NodeEvents) -> Queue:
    """A queue that toril has used in every way, with a job left in each state."""

    async def work(job: Job) -> None:
        await job.log("row")
        if job.name == "fail":
            raise ValueError("no")

    good = await queue.add("work")
    bad = await queue.add("fail")
    async with Worker(queue, work):
        await node_events.event("completed", good.id)
        await node_events.event("failed", bad.id)
    await good.result(timeout=30)
    await queue.add("work", delay=3600)
    await queue.add("work", priority=3)
    await queue.add("work", job_id="mine")
    return queue


async def test_nodes_cleanup_of_orphans_finds_none(used_queue: Queue, node_queue: NodeQueue) -> None:
    """No key that toril writes looks like a lost job to Node."""
    assert await node_queue.call("removeOrphanedJobs") == 0
    assert sum((await node_queue.counts()).values()) == 5


async def test_node_obliterates_what_toril_used(
    used_queue: Queue, node_queue: NodeQueue, client: redis.asyncio.Redis, prefix: str
) -> None:
    """After Node's obliterate nothing is left but receipts of the last adds, which go by themselves."""
    await node_queue.call("obliterate")

    left = [key async for key in client.scan_iter(f"{prefix}:*")]
    assert [key for key in left if ":toril:add:" not in key] == []
    assert all([0 < await client.pttl(key) <= 300_000 for key in left])


async def test_node_drains_and_cleans_what_toril_added(used_queue: Queue, node_queue: NodeQueue) -> None:
    """Node's drain and clean take toril's jobs for its own."""
    await node_queue.call("drain", True)
    assert await node_queue.counts() == {"completed": 1, "failed": 1}

    assert await node_queue.call("clean", 0, 10, "completed") == ["1"]
    assert await node_queue.call("clean", 0, 10, "failed") == ["2"]
    assert await node_queue.counts() == {}


async def test_node_moves_toril_s_failed_jobs_back_in_bulk(used_queue: Queue, node_queue: NodeQueue) -> None:
    """Node's retryJobs and promoteJobs find toril's failed and delayed jobs."""
    await node_queue.call("retryJobs")
    await node_queue.call("promoteJobs")

    assert await node_queue.counts() == {"completed": 1, "prioritized": 1, "waiting": 3}


async def test_a_prefix_may_hold_a_hash_tag(node: Node, server_url: str, prefix: str) -> None:
    """With the braces that a cluster needs, both sides still mean the same keys."""
    tagged = f"{prefix}:{{tag}}"
    async with Queue("tests", connection=server_url, prefix=tagged) as queue:
        job = await queue.add("echo", {"a": 1})
        async with NodeWorker(node, "tests", {"*": [[]]}, prefix=tagged, name="w") as worker:
            assert await job.result(timeout=30) == {"a": 1}
            await worker.event("drained")
            assert [entry["name"].endswith(":w:w") for entry in await queue.get_workers()] == [True]
