"""Jobs that the reference client adds and toril's worker runs."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from toril import DelayedError, Job, Queue, UnrecoverableError, Worker

from .node import UNDEFINED, NodeEvents, NodeQueue

Json = Any


async def echo(job: Job) -> Json:
    return job.data


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="standard"),
        pytest.param({"lifo": True}, id="lifo"),
        pytest.param({"delay": 80}, id="delayed"),
        pytest.param({"priority": 3}, id="prioritized"),
        pytest.param({"priority": 2097151}, id="lowest priority"),
        pytest.param({"delay": 80, "priority": 3}, id="delayed and prioritized"),
        pytest.param({"jobId": "order-7"}, id="custom id"),
        pytest.param({"jobId": "öre 7/å"}, id="custom id that is not ASCII"),
        pytest.param({"jobId": "a:b:c"}, id="custom id of three parts"),
        pytest.param({"timestamp": 1700000000000}, id="timestamp"),
        pytest.param({"attempts": 3, "backoff": 50}, id="attempts with a bare backoff"),
        pytest.param(
            {"attempts": 3, "backoff": {"type": "exponential", "delay": 50}}, id="attempts and backoff"
        ),
        pytest.param({"keepLogs": 5, "stackTraceLimit": 2, "sizeLimit": 1000}, id="limits"),
        pytest.param({"removeOnComplete": False, "removeOnFail": {"age": 60}}, id="retention"),
        pytest.param({"unheardOf": {"by": "us"}}, id="an option that nobody knows"),
    ],
)
async def test_toril_runs_what_node_adds(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, options: dict[str, Json]
) -> None:
    """A job runs with its data whatever its options are, and Node sees it complete."""
    data: Json = {
        "text": 'blå/\\"',
        "list": [],
        "null": None,
        "number": 1.5,
        "nested": {"a": [1, {"b": None}]},
    }
    added = await node_queue.add("echo", data, **options)

    async with Worker(queue, echo):
        completed = await node_events.event("completed", added["id"])

    assert completed.args[0]["returnvalue"] == data
    read = await node_queue.job(added["id"])
    assert read is not None
    assert (read["returnvalue"], read["attemptsMade"], read["attemptsStarted"]) == (data, 1, 1)
    assert read["opts"] == added["opts"]
    assert await node_queue.counts() == {"completed": 1}


@pytest.mark.parametrize(
    "data", [None, [], {}, 0, "text", "", True, [None], "\u2028 \U0001f402", 9007199254740991, 1e-7], ids=repr
)
async def test_toril_reads_any_data_that_node_stores(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, data: Json
) -> None:
    """Data of every JSON type arrives, and comes back as the return value."""
    added = await node_queue.add("echo", data)

    async with Worker(queue, echo):
        completed = await node_events.event("completed", added["id"])

    assert completed.args[0]["returnvalue"] == data


async def test_no_data_is_an_empty_object(queue: Queue, node_queue: NodeQueue) -> None:
    """Node's undefined reaches a processor as an empty object, not as nothing."""
    added = await node_queue.add("echo", UNDEFINED)

    job = await queue.get_job(added["id"])

    assert job is not None
    assert job.data == {}


async def test_jobs_run_in_nodes_order(queue: Queue, node_queue: NodeQueue, node_events: NodeEvents) -> None:
    """LIFO jobs first, newest first; then the line; then priorities, lowest number first, in order of arrival."""
    adds: list[tuple[str, dict[str, Json]]] = [
        ("line 1", {}),
        ("priority 5", {"priority": 5}),
        ("lifo 1", {"lifo": True}),
        ("priority 1", {"priority": 1}),
        ("priority 5 again", {"priority": 5}),
        ("line 2", {}),
        ("lifo 2", {"lifo": True}),
    ]
    for name, options in adds:
        await node_queue.add(name, {}, **options)
    ran: list[str] = []

    async def note(job: Job) -> None:
        ran.append(job.name)

    async with Worker(queue, note):
        await node_events.event("completed", times=7)

    assert ran == ["lifo 2", "lifo 1", "line 1", "line 2", "priority 1", "priority 5", "priority 5 again"]


async def test_a_delayed_job_waits_for_its_time(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """It starts no earlier than its delay after it was added, and its delay is then 0."""
    async with Worker(queue, echo):
        added = await node_queue.add("echo", {}, delay=300)
        assert await queue.get_job_state(added["id"]) == "delayed"
        await node_events.event("completed", added["id"])

    job = await queue.get_job(added["id"])
    assert job is not None
    assert job.processed_on is not None
    # A few ms for the servers' clock against Node's: both are on this machine.
    assert 295 <= job.processed_on - job.timestamp < 2000
    assert job.delay == 0


async def test_an_id_that_node_has_used_is_not_added_again(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """toril's add of an id that exists changes nothing and is told as a duplicate."""
    await node_queue.add("first", {"by": "node"}, jobId="order-7")

    job = await queue.add("second", {"by": "toril"}, job_id="order-7")

    assert job.id == "order-7"
    await node_events.event("duplicated", "order-7")
    read = await node_queue.job("order-7")
    assert read is not None
    assert (read["name"], read["data"]) == ("first", {"by": "node"})
    assert await node_queue.counts() == {"waiting": 1}


async def test_toril_runs_a_bulk_that_node_adds(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """All jobs of a bulk run once, whatever each one's options are."""
    bulk = [
        {"name": "echo", "data": {"i": i}, "opts": {"priority": i % 3, "delay": i % 2}} for i in range(20)
    ]
    await node_queue.call("addBulk", bulk)
    ran: list[int] = []

    async def note(job: Job) -> None:
        ran.append(job.data["i"])

    async with Worker(queue, note, concurrency=5):
        await node_events.event("completed", times=20)

    assert sorted(ran) == list(range(20))


async def test_a_queue_that_node_pauses_stands_still(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """While Node has paused the queue toril's worker takes nothing; when Node resumes it, it goes on."""
    async with Worker(queue, echo):
        first = await node_queue.add("echo", 1)
        await node_events.event("completed", first["id"])
        await node_queue.call("pause")
        assert await queue.is_paused()

        second = await node_queue.add("echo", 2)
        # As long as an idle worker sleeps at most when a delayed job is due soon: it has had its chance.
        third = await node_queue.add("echo", 3, delay=50)
        await asyncio.sleep(0.4)
        assert await queue.get_job_state(second["id"]) == "waiting"
        assert await queue.get_job_state(third["id"]) in ("delayed", "waiting")

        await node_queue.call("resume")
        await node_events.event("completed", second["id"])
        await node_events.event("completed", third["id"])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"removeOnComplete": True}, []),
        ({"removeOnComplete": 0}, []),
        ({"removeOnComplete": 2}, ["5", "4"]),
        ({"removeOnComplete": {"count": 3}}, ["5", "4", "3"]),
        ({"removeOnComplete": {"age": 3600}}, ["5", "4", "3", "2", "1"]),
        ({"removeOnComplete": {"age": 0}}, []),
        ({"removeOnComplete": {"age": 3600, "count": 1}}, ["5"]),
        ({"removeOnComplete": False}, ["5", "4", "3", "2", "1"]),
        ({}, ["5", "4", "3", "2", "1"]),
    ],
    ids=str,
)
async def test_toril_keeps_what_nodes_retention_keeps(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, options: dict[str, Json], kept: list[str]
) -> None:
    """Of five jobs that complete, those stay that the job's own option names."""
    await node_queue.call("addBulk", [{"name": "echo", "data": {}, "opts": options}] * 5)

    async with Worker(queue, echo):
        await node_events.event("completed", times=5)

    jobs = await node_queue.call("getJobs", ["completed"])
    assert [job["id"] for job in jobs] == kept


async def test_failed_jobs_have_a_retention_of_their_own(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """removeOnFail rules failed jobs, and removeOnComplete does not."""

    async def fail(job: Job) -> None:
        raise ValueError("no")

    options = {"removeOnFail": 1, "removeOnComplete": True}
    await node_queue.call("addBulk", [{"name": "fail", "data": {}, "opts": options}] * 3)

    async with Worker(queue, fail):
        await node_events.event("failed", times=3)

    jobs = await node_queue.call("getJobs", ["failed"])
    assert [job["id"] for job in jobs] == ["3"]


@pytest.mark.parametrize(
    ("backoff", "gaps"),
    [
        pytest.param(None, [0, 0], id="none"),
        pytest.param({"type": "fixed", "delay": 60}, [60, 60], id="fixed"),
        pytest.param({"type": "exponential", "delay": 60}, [60, 120], id="exponential"),
        pytest.param({"type": "exponential", "delay": 60, "jitter": 0.5}, [30, 60], id="jitter"),
        pytest.param({"type": "ours"}, [70, 80], id="custom"),
    ],
)
async def test_toril_retries_with_nodes_backoff(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, backoff: Json, gaps: list[int]
) -> None:
    """Each wait between attempts is at least the backoff's; the last error and all traces stay on the job."""
    starts: list[int] = []

    async def third_time_lucky(job: Job) -> str:
        assert job.processed_on is not None
        starts.append(job.processed_on)
        if len(starts) < 3:
            raise ValueError(f"attempt {len(starts)}")
        return "done"

    def wait(attempts_made: int, *_: object) -> float:
        return 0.06 + attempts_made / 100

    options = {"attempts": 3} | ({"backoff": backoff} if backoff else {})
    added = await node_queue.add("flaky", {}, **options)

    async with Worker(queue, third_time_lucky, backoff_strategy=wait):
        await node_events.event("completed", added["id"])

    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert all(gap <= wait < gap + 2000 for wait, gap in zip(waits, gaps, strict=True)), waits
    read = await node_queue.job(added["id"])
    assert read is not None
    assert (read["attemptsMade"], read["attemptsStarted"]) == (3, 3)
    assert (read["failedReason"], read["returnvalue"]) == ("attempt 2", "done")
    assert len(read["stacktrace"]) == 2
    assert all("ValueError" in trace for trace in read["stacktrace"])


async def test_a_job_fails_for_good_when_its_attempts_are_used_up(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """Node sees one failure, of the last attempt, and the news that no attempt is left."""

    async def fail(job: Job) -> None:
        raise ValueError(f"attempt {job.attempts_started}")

    added = await node_queue.add("fail", {}, attempts=2, stackTraceLimit=1)

    async with Worker(queue, fail):
        failed = await node_events.event("failed", added["id"])
        exhausted = await node_events.event("retries-exhausted", added["id"])

    assert failed.args[0]["failedReason"] == "attempt 2"
    assert exhausted.args[0]["attemptsMade"] == "2"
    assert len(node_events.told("failed")) == 1
    read = await node_queue.job(added["id"])
    assert read is not None
    assert len(read["stacktrace"]) == 1
    assert "attempt 2" in read["stacktrace"][0]
    assert await node_queue.counts() == {"failed": 1}


async def test_an_unrecoverable_error_ends_a_job_at_once(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """The attempts that are left are not used, and are not called exhausted."""

    async def give_up(job: Job) -> None:
        raise UnrecoverableError("never mind")

    added = await node_queue.add("fail", {}, attempts=5)

    async with Worker(queue, give_up):
        failed = await node_events.event("failed", added["id"])

    assert failed.args[0]["failedReason"] == "never mind"
    assert node_events.told("retries-exhausted") == []
    read = await node_queue.job(added["id"])
    assert read is not None
    assert (read["attemptsMade"], read["attemptsStarted"]) == (1, 1)


async def test_a_step_that_delays_itself_uses_no_attempt(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """DelayedError puts the job into delayed, where Node sees it; it runs again later in the same attempt."""

    async def in_two_steps(job: Job) -> str:
        if job.data["step"] == 1:
            await job.update_data({"step": 2})
            raise DelayedError(0.1)
        return "both"

    added = await node_queue.add("steps", {"step": 1}, attempts=1)

    async with Worker(queue, in_two_steps):
        await node_events.event("delayed", added["id"])
        completed = await node_events.event("completed", added["id"])

    assert completed.args[0]["returnvalue"] == "both"
    read = await node_queue.job(added["id"])
    assert read is not None
    assert (read["attemptsMade"], read["attemptsStarted"], read["data"]) == (1, 2, {"step": 2})


async def test_a_node_developer_retries_what_failed_in_toril(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """Node's job.retry sends a failed job through toril's worker once more."""

    async def fail_once(job: Job) -> str:
        if job.attempts_started == 1:
            raise ValueError("once")
        return "fine"

    added = await node_queue.add("fail", {})

    async with Worker(queue, fail_once):
        await node_events.event("failed", added["id"])
        await node_queue.on_job(added["id"], "retry")
        await node_events.event("completed", added["id"])

    assert await node_queue.counts() == {"completed": 1}


async def test_a_delayed_job_that_node_promotes_runs_now(
    queue: Queue, node_queue: NodeQueue, node_events: NodeEvents
) -> None:
    """Node's job.promote wakes toril's sleeping worker."""
    added = await node_queue.add("echo", 1, delay=3_600_000)

    async with Worker(queue, echo):
        await node_queue.on_job(added["id"], "promote")
        await node_events.event("completed", added["id"])
