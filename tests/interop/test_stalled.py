"""Workers that die: a job that one side's worker leaves behind is taken over by the other's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import redis.asyncio

from toril import Job, Queue, Worker

from .node import Node, NodeEvents, NodeQueue, NodeWorker

Json = Any


async def echo(job: Job) -> Json:
    return job.data


async def test_toril_takes_over_from_a_node_that_was_killed(
    server_url: str, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, node: Node, prefix: str
) -> None:
    """After kill -9 of a Node worker its job is stalled, and runs in toril as its second start."""
    doomed = Node(server_url)
    try:
        worker = NodeWorker(
            doomed,
            "tests",
            {"*": [[["gate", "never"]]]},
            prefix=prefix,
            lockDuration=300,
            skipStalledCheck=True,
        )
        await worker.open()
        added = await node_queue.add("echo", {"a": 1})
        await worker.event("active", added["id"])
    finally:
        doomed.kill()

    async with Worker(queue, echo, stalled_interval=0.3):
        await node_events.event("stalled", added["id"])
        await node_events.event("completed", added["id"])

    job = await queue.get_job(added["id"])
    assert job is not None
    assert (job.return_value, job.attempts_started, job.attempts_made, job.stalled_counter) == (
        {"a": 1},
        2,
        1,
        1,
    )


async def test_node_takes_over_from_a_toril_that_was_killed(
    server_url: str, node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """After kill -9 of a toril worker its job is stalled, and runs in Node as its second start."""
    added = await node_queue.add("echo", {"a": 1})
    await _run_and_die(server_url, prefix, node_events, added["id"])

    async with NodeWorker(node, "tests", {"*": [[]]}, prefix=prefix, stalledInterval=300) as worker:
        await worker.event("stalled", added["id"])
        await worker.event("completed", added["id"])

    job = await queue.get_job(added["id"])
    assert job is not None
    assert (job.return_value, job.attempts_started, job.attempts_made, job.stalled_counter) == (
        {"a": 1},
        2,
        1,
        1,
    )


async def test_toril_fails_what_stalled_too_often(
    server_url: str, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """A job that may not stall is failed without running, with the text that Node puts to it."""
    doomed = Node(server_url)
    try:
        worker = NodeWorker(
            doomed,
            "tests",
            {"*": [[["gate", "never"]]]},
            prefix=prefix,
            lockDuration=300,
            skipStalledCheck=True,
        )
        await worker.open()
        added = await node_queue.add("echo", {}, attempts=3)
        await worker.event("active", added["id"])
    finally:
        doomed.kill()

    async with Worker(queue, echo, stalled_interval=0.3, max_stalled_count=0):
        failed = await node_events.event("failed", added["id"])

    assert failed.args[0]["failedReason"] == "job stalled more than allowable limit"
    job = await node_queue.job(added["id"])
    assert job is not None
    assert (job["attemptsStarted"], job["stalledCounter"], len(job["stacktrace"])) == (2, 1, 1)
    assert job.get("deferredFailure") is None


async def test_node_fails_what_stalled_too_often_in_toril(
    server_url: str, node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, prefix: str
) -> None:
    """toril's job that may not stall is failed by Node."""
    added = await queue.add("echo", {}, attempts=3)
    await _run_and_die(server_url, prefix, node_events, added.id)

    async with NodeWorker(
        node, "tests", {"*": [[]]}, prefix=prefix, stalledInterval=300, maxStalledCount=0
    ) as worker:
        await worker.event("failed", added.id)

    job = await queue.get_job(added.id)
    assert job is not None
    assert job.failed_reason == "job stalled more than allowable limit"
    assert (job.attempts_started, job.stalled_counter) == (2, 1)


async def test_node_leaves_alone_what_toril_still_runs(
    client: redis.asyncio.Redis, node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """toril renews its locks, so Node's stalled checks pass over a job that runs for longer than its lock."""
    go_on = asyncio.Event()

    async def work(job: Job) -> str:
        await asyncio.wait_for(go_on.wait(), 30)
        return "done"

    job = await queue.add("work")
    async with (
        Worker(queue, work, lock_duration=0.4, stalled_interval=60),
        NodeWorker(node, "tests", None, prefix=prefix, stalledInterval=60_000) as checker,
    ):
        for _ in range(4):
            await asyncio.sleep(0.3)
            await client.delete(queue.keys.key("stalled-check"))
            assert await node.ask("stalled", worker=checker.handle) == []
        go_on.set()
        assert await job.result(timeout=30) == "done"

    read = await node_queue.job(job.id)
    assert read is not None
    assert (read["attemptsStarted"], read["stalledCounter"]) == (1, 0)


async def test_toril_leaves_alone_what_node_still_runs(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """Node renews its locks, so toril's stalled checks pass over a job that runs for longer than its lock."""

    async def never(job: Job) -> None:
        raise AssertionError("toril took a job that Node was running")

    async with NodeWorker(
        node, "tests", {"*": [[["gate", prefix], ["return", "done"]]]}, prefix=prefix, lockDuration=400
    ) as worker:
        job = await queue.add("work")
        await worker.event("active", job.id)
        async with Worker(queue, never, stalled_interval=0.2):
            await asyncio.sleep(1.2)
            await worker.open_gate(prefix)
            assert await job.result(timeout=30) == "done"

    read = await node_queue.job(job.id)
    assert read is not None
    assert (read["attemptsStarted"], read["stalledCounter"]) == (1, 0)


async def test_who_is_back_keeps_from_node_what_node_has_not_taken_yet(
    node: Node, queue: Queue, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Between Node's two looks toril takes its lock again, and keeps the job. After the second it is lost, for good."""
    await queue.add("work", job_id="a")
    ours = await Worker(queue, echo).get_next_job()
    assert ours is not None
    lock = queue.keys.job("a") + ":lock"

    async with NodeWorker(node, "tests", None, prefix=prefix) as checker:

        async def look() -> Json:
            await client.delete(queue.keys.key("stalled-check"))
            return await node.ask("stalled", worker=checker.handle)

        await client.delete(lock)
        assert await look() == []
        assert await ours.extend_lock(60)
        assert await look() == []

        await client.delete(lock)
        assert await look() == ["a"]
        assert not await ours.extend_lock(60)
        assert (await node.ask("take", worker=checker.handle, token="theirs"))["id"] == "a"
        await client.delete(lock)
        assert not await ours.extend_lock(60), "another has started it since, though it is silent as well"
        assert not await client.exists(lock)


DOOMED = """
import asyncio, sys
from toril import Worker

async def work(job):
    await asyncio.Event().wait()

url, prefix = sys.argv[1:]
asyncio.run(Worker("tests", work, connection=url, prefix=prefix, lock_duration=0.3, skip_stalled_check=True).run())
"""


async def _run_and_die(server_url: str, prefix: str, node_events: NodeEvents, job_id: str) -> None:
    """Let a toril worker in a process of its own start the job, and kill it with -9."""
    process = subprocess.Popen([sys.executable, "-c", DOOMED, server_url, prefix])
    try:
        await node_events.event("active", job_id)
    finally:
        process.kill()
        process.wait()
