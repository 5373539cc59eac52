"""Jobs that toril adds and the reference client's worker runs."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from toril import (
    Custom,
    Exponential,
    Fixed,
    JobFailedError,
    JobOptions,
    KeepJobs,
    NewJob,
    Queue,
)

from .node import Node, NodeEvents, NodeQueue, NodeWorker

Json = Any

ECHO: dict[str, Json] = {"*": [[]]}
"""A worker that returns the job's data."""


@pytest.mark.parametrize(
    ("options", "as_node_reads_them"),
    [
        pytest.param({}, {}, id="standard"),
        pytest.param({"lifo": True}, {"lifo": True}, id="lifo"),
        pytest.param({"delay": 0.08}, {"delay": 80}, id="delayed"),
        pytest.param({"delay": timedelta(seconds=0.08)}, {"delay": 80}, id="delayed by a timedelta"),
        pytest.param({"priority": 3}, {"priority": 3}, id="prioritized"),
        pytest.param({"priority": 2097151}, {"priority": 2097151}, id="lowest priority"),
        pytest.param(
            {"delay": 0.08, "priority": 3}, {"delay": 80, "priority": 3}, id="delayed and prioritized"
        ),
        pytest.param({"job_id": "order-7"}, {"jobId": "order-7"}, id="custom id"),
        pytest.param({"job_id": "öre 7/å"}, {"jobId": "öre 7/å"}, id="custom id that is not ASCII"),
        pytest.param({"job_id": "a:b:c"}, {"jobId": "a:b:c"}, id="custom id of three parts"),
        pytest.param({"timestamp": 1700000000000}, {"timestamp": 1700000000000}, id="timestamp"),
        pytest.param(
            {"attempts": 3, "backoff": 0.05},
            {"attempts": 3, "backoff": {"type": "fixed", "delay": 50}},
            id="attempts and a bare backoff",
        ),
        pytest.param(
            {"attempts": 3, "backoff": Exponential(0.05, jitter=0.5)},
            {"attempts": 3, "backoff": {"type": "exponential", "delay": 50, "jitter": 0.5}},
            id="attempts and backoff",
        ),
        pytest.param(
            {"keep_logs": 5, "stack_trace_limit": 2, "size_limit": 1000},
            {"keepLogs": 5, "stackTraceLimit": 2, "sizeLimit": 1000},
            id="limits",
        ),
        pytest.param(
            {"remove_on_complete": False, "remove_on_fail": KeepJobs(age=60, count=7)},
            {"removeOnComplete": False, "removeOnFail": {"age": 60, "count": 7}},
            id="retention",
        ),
    ],
)
async def test_node_runs_what_toril_adds(
    node: Node,
    queue: Queue,
    node_queue: NodeQueue,
    prefix: str,
    options: JobOptions,
    as_node_reads_them: Json,
) -> None:
    """A job runs with its data whatever its options are, and Node reads the options under its own names."""
    data: Json = {
        "text": 'blå/\\"',
        "list": [],
        "null": None,
        "number": 1.5,
        "nested": {"a": [1, {"b": None}]},
    }
    job = await queue.add("echo", data, **options)

    async with NodeWorker(node, "tests", ECHO, prefix=prefix):
        assert await job.result(timeout=30) == data

    read = await node_queue.job(job.id)
    assert read is not None
    assert (read["name"], read["data"], read["returnvalue"]) == ("echo", data, data)
    assert read["opts"] == {"attempts": 0, **as_node_reads_them}
    assert await node_queue.counts() == {"completed": 1}


@pytest.mark.parametrize(
    "data", [[], {}, 0, "text", "", True, [None], "\u2028 \U0001f402", 9007199254740991, 1e-7], ids=repr
)
async def test_node_reads_any_data_that_toril_stores(
    node: Node, queue: Queue, prefix: str, data: Json
) -> None:
    """Data of every JSON type arrives, and comes back as the return value."""
    job = await queue.add("echo", data)

    async with NodeWorker(node, "tests", ECHO, prefix=prefix):
        assert await job.result(timeout=30) == data


async def test_no_data_is_an_empty_object(queue: Queue, node_queue: NodeQueue) -> None:
    """toril's None reaches Node as Node stores its own undefined."""
    job = await queue.add("echo")

    read = await node_queue.job(job.id)

    assert read is not None
    assert read["data"] == {}


async def test_jobs_run_in_torils_order(node: Node, queue: Queue, prefix: str) -> None:
    """LIFO jobs first, newest first; then the line; then priorities, lowest number first, in order of arrival."""
    await queue.add("line 1")
    await queue.add("priority 5", priority=5)
    await queue.add("lifo 1", lifo=True)
    await queue.add("priority 1", priority=1)
    await queue.add("priority 5 again", priority=5)
    await queue.add("line 2")
    await queue.add("lifo 2", lifo=True)

    async with NodeWorker(node, "tests", ECHO, prefix=prefix) as worker:
        await worker.event("completed", times=7)

    ran = [event.args[0]["name"] for event in worker.told("active")]
    assert ran == ["lifo 2", "lifo 1", "line 1", "line 2", "priority 1", "priority 5", "priority 5 again"]


async def test_a_delayed_job_wakes_nodes_worker_in_time(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """A Node worker that sleeps on an empty queue learns when a job of toril's is due."""
    async with NodeWorker(node, "tests", ECHO, prefix=prefix) as worker:
        await worker.event("drained")
        job = await queue.add("echo", delay=0.3)
        assert await queue.get_job_state(job.id) == "delayed"
        await worker.event("completed", job.id)

    read = await node_queue.job(job.id)
    assert read is not None
    # Its drain delay is 5 s: much less shows that it was woken.
    assert 295 <= read["processedOn"] - read["timestamp"] < 2000


async def test_an_id_that_toril_has_used_is_not_added_again(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """Node's add of an id that exists changes nothing and is told as a duplicate."""
    await queue.add("first", {"by": "toril"}, job_id="order-7")

    added = await node_queue.add("second", {"by": "node"}, jobId="order-7")

    assert added["id"] == "order-7"
    await node_events.event("duplicated", "order-7")
    job = await queue.get_job("order-7")
    assert job is not None
    assert (job.name, job.data) == ("first", {"by": "toril"})
    assert await node_queue.counts() == {"waiting": 1}


async def test_generated_ids_come_from_one_counter(queue: Queue, node_queue: NodeQueue) -> None:
    """Jobs that both sides add in turn are numbered in the order of adding."""
    ids = [
        (await queue.add("a")).id,
        (await node_queue.add("b"))["id"],
        (await queue.add("c")).id,
        (await node_queue.add("d"))["id"],
    ]

    assert ids == ["1", "2", "3", "4"]


async def test_node_runs_a_bulk_that_toril_adds(node: Node, queue: Queue, prefix: str) -> None:
    """All jobs of a bulk run once, whatever each one's options are."""
    jobs = await queue.add_bulk(
        NewJob("echo", {"i": i}, {"priority": i % 3, "delay": (i % 2) / 100, "lifo": i % 5 == 0})
        for i in range(20)
    )

    async with NodeWorker(node, "tests", ECHO, prefix=prefix, concurrency=5) as worker:
        await worker.event("completed", times=20)

    assert [job.data["i"] for job in jobs] == list(range(20))
    ran = sorted(event.args[0]["data"]["i"] for event in worker.told("completed"))
    assert ran == list(range(20))


async def test_a_queue_that_toril_pauses_stands_still_for_node(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """A job added while toril has paused the queue runs only after toril resumes it."""
    await queue.pause()
    assert await node_queue.call("isPaused")
    job = await queue.add("echo", 1)

    async with NodeWorker(node, "tests", ECHO, prefix=prefix) as worker:
        await worker.event("drained")
        assert await node_queue.counts() == {"waiting": 1}
        await queue.resume()
        await worker.event("completed", job.id)

    assert not await node_queue.call("isPaused")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"remove_on_complete": True}, []),
        ({"remove_on_complete": 0}, []),
        ({"remove_on_complete": 2}, ["5", "4"]),
        ({"remove_on_complete": KeepJobs(count=3)}, ["5", "4", "3"]),
        ({"remove_on_complete": KeepJobs(age=3600)}, ["5", "4", "3", "2", "1"]),
        ({"remove_on_complete": KeepJobs(age=3600, count=1)}, ["5"]),
        ({"remove_on_complete": False}, ["5", "4", "3", "2", "1"]),
        ({}, ["5", "4", "3", "2", "1"]),
    ],
    ids=str,
)
async def test_node_keeps_what_torils_retention_keeps(
    node: Node, queue: Queue, prefix: str, options: JobOptions, kept: list[str]
) -> None:
    """Of five jobs that complete in Node, those stay that the job's own option names."""
    await queue.add_bulk([NewJob("echo", {}, options)] * 5)

    async with NodeWorker(node, "tests", ECHO, prefix=prefix) as worker:
        await worker.event("completed", times=5)

    assert await queue.get_ids("completed") == kept


@pytest.mark.parametrize(
    ("backoff", "gaps"),
    [
        pytest.param(None, [0, 0], id="none"),
        pytest.param(Fixed(0.06), [60, 60], id="fixed"),
        pytest.param(Exponential(0.06), [60, 120], id="exponential"),
        pytest.param(Exponential(0.06, jitter=0.5), [30, 60], id="jitter"),
        pytest.param(Custom("ours"), [70, 80], id="custom"),
    ],
)
async def test_node_retries_with_torils_backoff(
    node: Node, queue: Queue, prefix: str, backoff: Json, gaps: list[int]
) -> None:
    """Each wait between attempts is at least the backoff's; toril reads the last error and all traces."""
    options: JobOptions = {"attempts": 3}
    if backoff is not None:
        options["backoff"] = backoff
    job = await queue.add("flaky", **options)
    script = {"*": [[["throw", {"message": "one"}]], [["throw", {"message": "two"}]], [["return", "done"]]]}

    async with NodeWorker(node, "tests", script, prefix=prefix, backoffs=[70, 80]) as worker:
        assert await job.result(timeout=30) == "done"

    starts = [event.args[0]["processedOn"] for event in worker.told("active")]
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert all(gap <= wait < gap + 2000 for wait, gap in zip(waits, gaps, strict=True)), waits
    read = await queue.get_job(job.id)
    assert read is not None
    assert (read.attempts_made, read.attempts_started, read.failed_reason) == (3, 3, "two")
    assert [trace.splitlines()[0] for trace in read.stacktrace] == ["Error: one", "Error: two"]


async def test_a_failure_in_node_reaches_who_waits_for_the_result(
    node: Node, queue: Queue, prefix: str
) -> None:
    """job.result raises the reason that Node's worker stored."""
    job = await queue.add("fail", attempts=2)

    async with NodeWorker(node, "tests", {"*": [[["throw", {"message": "no luck"}]]]}, prefix=prefix):
        with pytest.raises(JobFailedError, match="no luck"):
            await job.result(timeout=30)

    assert await queue.get_job_state(job.id) == "failed"


async def test_an_unrecoverable_error_in_node_ends_a_job_at_once(
    node: Node, queue: Queue, prefix: str
) -> None:
    """toril reads one attempt of the five that it gave."""
    job = await queue.add("fail", attempts=5)
    script = {"*": [[["throw", {"message": "never mind", "unrecoverable": True}]]]}

    async with NodeWorker(node, "tests", script, prefix=prefix):
        with pytest.raises(JobFailedError, match="never mind"):
            await job.result(timeout=30)

    read = await queue.get_job(job.id)
    assert read is not None
    assert (read.attempts_made, read.attempts_started) == (1, 1)


async def test_a_step_that_delays_itself_in_node(node: Node, queue: Queue, prefix: str) -> None:
    """Node's DelayedError puts the job into delayed, and uses no attempt."""
    job = await queue.add("steps", {"step": 1}, attempts=1)
    script = {"*": [[["data", {"step": 2}], ["delay", 100]], [["return", "both"]]]}

    async with NodeWorker(node, "tests", script, prefix=prefix):
        assert await job.result(timeout=30) == "both"

    read = await queue.get_job(job.id)
    assert read is not None
    assert (read.attempts_made, read.attempts_started, read.data) == (1, 2, {"step": 2})


async def test_toril_retries_what_failed_in_node(node: Node, queue: Queue, prefix: str) -> None:
    """job.retry sends a failed job through Node's worker once more."""
    job = await queue.add("fail")
    script = {"*": [[["throw", {"message": "once"}]], [["return", "fine"]]]}

    async with NodeWorker(node, "tests", script, prefix=prefix) as worker:
        await worker.event("failed", job.id)
        await job.retry()
        await worker.event("completed", job.id)

    assert await queue.get_job_counts("completed", "failed") == {"completed": 1, "failed": 0}


async def test_a_delayed_job_that_toril_promotes_runs_now(node: Node, queue: Queue, prefix: str) -> None:
    """job.promote wakes Node's sleeping worker."""
    job = await queue.add("echo", 1, delay=3600)

    async with NodeWorker(node, "tests", ECHO, prefix=prefix) as worker:
        await worker.event("drained")
        await job.promote()
        await worker.event("completed", job.id)
