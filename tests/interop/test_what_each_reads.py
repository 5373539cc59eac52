"""What one side writes about a job and the other side reads: getters, progress, logs, events, workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toril import Job, Queue, QueueEvents, State, Worker

from .node import Node, NodeEvents, NodeQueue, NodeWorker

Json = Any


async def test_nodes_getters_read_what_toril_wrote(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """Every property of a finished job, its logs, its state and the counts are as a Node worker leaves them."""

    async def work(job: Job) -> Json:
        if job.name == "fail":
            raise ValueError("no luck")
        await job.update_progress(40)
        await job.log("row 1")
        await job.log("row 2")
        await job.update_progress({"percent": 80, "text": "blå"})
        return {"ok": True}

    good = await queue.add("work", {"a": 1}, attempts=2)
    bad = await queue.add("fail", {"b": 2})
    later = await queue.add("later", delay=3600)
    async with Worker(queue, work, name="py-1"):
        await node_events.event("completed", good.id)
        await node_events.event("failed", bad.id)
    waiting = await queue.add("waiting")
    urgent = await queue.add("urgent", priority=1)

    read = await node_queue.job(good.id)
    assert read is not None
    assert read["progress"] == {"percent": 80, "text": "blå"}
    assert (read["returnvalue"], read["processedBy"], read["attemptsMade"]) == ({"ok": True}, "py-1", 1)
    assert read["timestamp"] <= read["processedOn"] <= read["finishedOn"]
    assert await node_queue.call("getJobLogs", good.id) == {"logs": ["row 1", "row 2"], "count": 2}

    read = await node_queue.job(bad.id)
    assert read is not None
    assert read["failedReason"] == "no luck"
    assert len(read["stacktrace"]) == 1
    assert "ValueError: no luck" in read["stacktrace"][0]
    assert await node_queue.counts() == {
        "completed": 1,
        "failed": 1,
        "delayed": 1,
        "waiting": 1,
        "prioritized": 1,
    }
    for state, job in [
        ("completed", good),
        ("failed", bad),
        ("delayed", later),
        ("waiting", waiting),
        ("prioritized", urgent),
    ]:
        assert await node_queue.call("getJobState", job.id) == state
        assert [found["id"] for found in await node_queue.call("getJobs", [state])] == [job.id]


async def test_torils_getters_read_what_node_wrote(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """Every property of a finished job, its logs, its state and the counts are as toril's worker leaves them."""
    scripts = {
        "work": [[["progress", 40], ["log", "row 1"], ["log", "row 2"], ["progress", {"percent": 80}],
                  ["return", {"ok": True}]]],
        "fail": [[["throw", {"message": "no luck"}]]],
    }  # fmt: skip
    good = await node_queue.add("work", {"a": 1}, attempts=2)
    bad = await node_queue.add("fail", {"b": 2})
    later = await node_queue.add("later", {}, delay=3_600_000)
    async with NodeWorker(node, "tests", scripts, prefix=prefix, name="node-1") as worker:
        await worker.event("completed", good["id"])
        await worker.event("failed", bad["id"])
    waiting = await node_queue.add("waiting")
    urgent = await node_queue.add("urgent", {}, priority=1)

    job = await queue.get_job(good["id"])
    assert job is not None
    assert (job.name, job.data, job.progress) == ("work", {"a": 1}, {"percent": 80})
    assert (job.return_value, job.processed_by, job.attempts_made) == ({"ok": True}, "node-1", 1)
    assert job.processed_on is not None
    assert job.finished_on is not None
    assert job.timestamp <= job.processed_on <= job.finished_on
    logs = await queue.get_job_logs(good["id"])
    assert (logs.logs, logs.count) == (["row 1", "row 2"], 2)

    job = await queue.get_job(bad["id"])
    assert job is not None
    assert job.failed_reason == "no luck"
    assert job.stacktrace[0].startswith("Error: no luck")
    counts = await queue.get_job_counts()
    assert {state: count for state, count in counts.items() if count} == {
        "completed": 1, "failed": 1, "delayed": 1, "waiting": 1, "prioritized": 1,
    }  # fmt: skip
    states: dict[State, dict[str, Json]] = {
        "completed": good,
        "failed": bad,
        "delayed": later,
        "waiting": waiting,
        "prioritized": urgent,
    }
    for state, added in states.items():
        assert await queue.get_job_state(added["id"]) == state
        assert [found.id for found in await queue.get_jobs(state)] == [added["id"]]


async def test_a_running_job_looks_the_same_to_both(queue: Queue, node_queue: NodeQueue) -> None:
    """While toril runs a job Node sees it active, by whom, and how far it is."""
    is_running, go_on = asyncio.Event(), asyncio.Event()

    async def work(job: Job) -> None:
        await job.update_progress(50)
        is_running.set()
        await go_on.wait()

    job = await queue.add("work")
    async with Worker(queue, work, name="py-1"):
        await asyncio.wait_for(is_running.wait(), 30)
        assert await node_queue.call("getJobState", job.id) == "active"
        read = await node_queue.job(job.id)
        assert read is not None
        assert (read["processedBy"], read["progress"], read["attemptsStarted"]) == ("py-1", 50, 1)
        go_on.set()
        await job.result(timeout=30)


async def test_logs_are_kept_to_the_same_limit(queue: Queue, node_queue: NodeQueue) -> None:
    """keepLogs bounds what either side appends, and each counts what is kept."""
    job = await queue.add("work", keep_logs=2)

    counts = [
        await job.log("toril 1"),
        await node_queue.on_job(job.id, "log", "node 1"),
        await job.log("toril 2"),
    ]

    assert counts == [1, 2, 2]
    assert await node_queue.call("getJobLogs", job.id) == {"logs": ["node 1", "toril 2"], "count": 2}


@pytest.mark.parametrize("name", [None, "w-1"])
async def test_node_finds_torils_workers(queue: Queue, node_queue: NodeQueue, name: str | None) -> None:
    """getWorkers lists one entry a worker, by its name, for as long as it runs."""
    is_drained = asyncio.Event()

    async def nothing(job: Job) -> None: ...

    worker = Worker(queue, nothing, name=name)
    worker.on("drained", is_drained.set)
    async with worker:
        await asyncio.wait_for(is_drained.wait(), 30)
        found = await node_queue.call("getWorkers")
        assert [entry["rawname"].partition(":w:")[2] for entry in found] == [name or ""]
        assert await node_queue.call("getWorkersCount") == 1

    assert await node_queue.call("getWorkers") == []


async def test_node_finds_a_worker_that_is_busy_from_its_start(queue: Queue, node_queue: NodeQueue) -> None:
    """A worker is listed before it has ever waited for a job."""
    is_running, go_on = asyncio.Event(), asyncio.Event()

    async def work(job: Job) -> None:
        is_running.set()
        await go_on.wait()

    await queue.add("work")
    async with Worker(queue, work, name="busy"):
        await asyncio.wait_for(is_running.wait(), 30)
        found = await node_queue.call("getWorkers")
        assert [entry["rawname"].partition(":w:")[2] for entry in found] == ["busy"]
        go_on.set()


async def test_toril_finds_nodes_workers(node: Node, queue: Queue, prefix: str) -> None:
    """get_workers lists a Node worker under the name of its connection."""
    async with NodeWorker(node, "tests", {"*": [[]]}, prefix=prefix, name="node-1") as worker:
        await worker.event("drained")
        found = await queue.get_workers()

    assert [entry["name"].partition(":w:")[2] for entry in found] == ["node-1"]


async def test_node_hears_torils_events(queue: Queue, node_events: NodeEvents) -> None:
    """The life of a job in toril, as Node's listener tells it, with values converted as Node does."""
    attempts = 0

    async def work(job: Job) -> Json:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("once")
        await job.update_progress({"percent": 50})
        return {"ok": True}

    await queue.pause()
    await queue.resume()
    job = await queue.add("work", {}, attempts=2, backoff=0.05)
    await queue.add("other", job_id="same", delay=3600)
    await queue.add("other", job_id="same")
    async with Worker(queue, work):
        await node_events.event("completed", job.id)

    told = [(event.name, event.args[0]) for event in node_events.told() if event.args and event.job_id == "1"]
    due = next(about["delay"] for name, about in told if name == "delayed")
    assert isinstance(due, int)
    assert told == [
        ("added", {"jobId": "1", "name": "work"}),
        ("waiting", {"jobId": "1"}),
        ("active", {"jobId": "1", "prev": "waiting"}),
        ("delayed", {"jobId": "1", "delay": due}),
        ("waiting", {"jobId": "1", "prev": "delayed"}),
        ("active", {"jobId": "1", "prev": "waiting"}),
        ("progress", {"jobId": "1", "data": {"percent": 50}}),
        ("completed", {"jobId": "1", "returnvalue": {"ok": True}, "prev": "active"}),
    ]
    assert [event.name for event in node_events.told() if event.name in ("paused", "resumed")] == [
        "paused",
        "resumed",
    ]
    assert [event.job_id for event in node_events.told("duplicated")] == ["same"]


async def test_node_waits_for_a_job_that_toril_runs(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """Node's waitUntilFinished answers with toril's return value."""

    async def work(job: Job) -> Json:
        return [job.data, "done"]

    added = await node_queue.add("work", 7)
    answer = node.send("wait", queue=node_queue.handle, events=node_events.handle, jobId=added["id"])
    async with Worker(queue, work):
        assert await asyncio.wait_for(asyncio.wrap_future(answer), 30) == [7, "done"]


async def test_toril_hears_nodes_events(
    server_url: str, node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """The life of a job in Node, as toril's listener tells it."""
    script = {
        "*": [[["throw", {"message": "once"}]], [["progress", {"percent": 50}], ["return", {"ok": True}]]]
    }
    told: list[tuple[str, str | None]] = []

    async with QueueEvents("tests", connection=server_url, prefix=prefix) as events:

        async def listen() -> None:
            async for event in events:
                told.append((event.name, event.job_id))
                if event.name == "completed":
                    return

        listening = asyncio.create_task(listen())
        await node_queue.call("pause")
        await node_queue.call("resume")
        added = await node_queue.add("work", {}, attempts=2, backoff=50)
        await node_queue.add("other", {}, jobId="same", delay=3_600_000)
        await node_queue.add("other", {}, jobId="same")
        async with NodeWorker(node, "tests", script, prefix=prefix) as worker:
            await worker.event("completed", added["id"])
        await asyncio.wait_for(listening, 30)

    assert [name for name, job_id in told if job_id == "1"] == [
        "added", "waiting", "active", "delayed", "waiting", "active", "progress", "completed",
    ]  # fmt: skip
    assert [name for name, job_id in told if job_id is None] == ["paused", "resumed"]
    assert [name for name, job_id in told if job_id == "same"] == ["added", "delayed", "duplicated"]
