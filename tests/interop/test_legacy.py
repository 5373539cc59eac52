"""What older versions of BullMQ left in a queue, or still write into it, is read and drained as Node does today.

Such data is built by hand, as the protocol describes it, twice: Node 6.7 works through one copy, toril through the
other, and both are asked the same. Beside that, BullMQ 5 itself writes some, and shares a queue with both.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.differential import keyspace
from tests.patience import Heard, until
from toril import ConfigurationError, Job, NewJob, Queue, Worker
from toril.embedded import EmbeddedServer
from toril.states import State

from .node import INTEROP, Node, NodeError, NodeEvents, NodeFlows, NodeQueue, NodeWorker, why_no_node

Json = Any
LONG_AGO = 1_700_000_000_000
REPEATABLE = "report::::60000"
"""The key of a repeatable job: name, id, end date, zone, and the pattern or interval."""


class Copies:
    """Two copies of a queue: one for Node, one for toril. `at` is where their keys are."""

    def __init__(self, server: EmbeddedServer, prefix: str) -> None:
        self.client = redis.Redis.from_url(server.url, decode_responses=True)
        self.prefixes = (f"{prefix}:node", f"{prefix}:toril")

    @property
    def bases(self) -> list[str]:
        return [f"{prefix}:tests:" for prefix in self.prefixes]

    def job(self, job_id: str, state: str, **fields: Json) -> None:
        """A record as old versions wrote it, and its id at the newest end of a list."""
        record: dict[Any, Any] = {"name": job_id, "data": "{}", "opts": "{}", "timestamp": LONG_AGO, **fields}
        record = {field: value for field, value in record.items() if value is not None}
        for base in self.bases:
            self.client.hset(base + job_id, mapping=record)
            self.client.lpush(base + state, job_id)

    def do(self, command: str, suffix: str, *args: Json) -> None:
        for base in self.bases:
            self.client.execute_command(command, base + suffix, *args)  # type: ignore[no-untyped-call]

    def keys(self) -> list[keyspace.Keyspace]:
        """Both copies without what depends on when they were worked through."""
        spaces: list[keyspace.Keyspace] = []
        for prefix in self.prefixes:
            space = keyspace.read(self.client, f"{prefix}:")
            for key in ("tests:stalled-check", "tests:marker"):
                space.pop(key, None)
            for entry in space.values():
                if entry["type"] == "hash":
                    for field in ("processedOn", "finishedOn", "stacktrace"):
                        entry["content"].pop(field, None)
                elif entry["type"] == "zset":
                    entry["content"] = sorted(member for member, _ in entry["content"])
            spaces.append(space)
        return spaces


@pytest.fixture
def copies(server: EmbeddedServer, prefix: str) -> Iterator[Copies]:
    copies = Copies(server, prefix)
    yield copies
    copies.client.close()


async def ask(node: Node, server_url: str, copies: Copies, *ids: str) -> None:
    """Both clients count the jobs alike, and find each in the same state."""
    async with (
        NodeQueue(node, "tests", prefix=copies.prefixes[0]) as theirs,
        Queue("tests", connection=server_url, prefix=copies.prefixes[1]) as ours,
    ):
        assert await ours.is_paused() == await theirs.call("isPaused")
        counted = await ours.get_job_counts()
        assert counted == {state: (await theirs.call("getJobCounts"))[state] for state in counted}
        assert [job.id for job in await ours.get_jobs("waiting")] == [
            job["id"] for job in await theirs.call("getJobs", ["waiting"])
        ]
        for job_id in ids:
            job = await ours.get_job(job_id)
            assert job is not None
            assert await job.get_state() == await theirs.call("getJobState", job_id)


async def drain(node: Node, server_url: str, copies: Copies, *, resume: bool = False) -> list[str]:
    """Let each client work through its copy; return the ids in the order in which both have run them."""
    ran: list[str] = []

    async def process(job: Job) -> Json:
        ran.append(job.id)
        return job.data

    async with NodeQueue(node, "tests", prefix=copies.prefixes[0]) as theirs:
        if resume:
            await theirs.call("resume")
        async with NodeWorker(node, "tests", {"*": [[]]}, prefix=copies.prefixes[0]) as worker:
            await until("Node to run all", lambda: _is_empty(copies, 0))
        by_node = [str(event.job_id) for event in worker.told("active")]
    async with Queue("tests", connection=server_url, prefix=copies.prefixes[1]) as ours:
        if resume:
            await ours.resume()
        async with Worker(ours, process):
            await until("toril to run all", lambda: _is_empty(copies, 1))
    assert ran == by_node
    node_keys, toril_keys = copies.keys()
    assert keyspace.difference(node_keys, toril_keys) == []
    return ran


def _is_empty(copies: Copies, which: int) -> bool:
    base = copies.bases[which]
    return not copies.client.exists(*(base + state for state in ("wait", "paused", "active", "prioritized")))


async def test_a_list_of_paused_jobs_is_read_and_drained(node: Node, server_url: str, copies: Copies) -> None:
    """Before 6, pausing moved what waits into `paused`. Resuming runs it first, oldest first."""
    for job_id in ("a", "b", "c"):
        copies.job(job_id, "paused", delay=0, priority=0)
    copies.job("new", "wait", delay=0, priority=0)
    copies.do("HSET", "meta", "paused", 1)
    await ask(node, server_url, copies, "a", "c", "new")

    assert await drain(node, server_url, copies, resume=True) == ["a", "b", "c", "new"]


async def test_a_list_of_paused_jobs_becomes_the_line(node: Node, server_url: str, copies: Copies) -> None:
    """Where nothing else waits; priorities, which never were in it, follow."""
    for job_id in ("a", "b"):
        copies.job(job_id, "paused")
    for base in copies.bases:
        copies.client.hset(
            base + "p", mapping={"name": "p", "opts": '{"priority":3}', "priority": 3, "data": "1"}
        )
        copies.client.zadd(base + "prioritized", {"p": 3 << 32})
    copies.do("HSET", "meta", "paused", 1)
    await ask(node, server_url, copies, "a", "b", "p")

    assert await drain(node, server_url, copies, resume=True) == ["a", "b", "p"]


async def test_old_markers_in_the_line_are_no_jobs(node: Node, server_url: str, copies: Copies) -> None:
    """Before 5, ids that begin with `0:` woke workers up; they are thrown away, wherever they stand."""
    copies.do("LPUSH", "wait", "0:0")
    copies.job("a", "wait")
    copies.do("LPUSH", "wait", f"0:{LONG_AGO}")
    copies.job("b", "wait")
    await ask(node, server_url, copies, "a", "b")

    assert await drain(node, server_url, copies) == ["a", "b"]


async def test_a_line_of_nothing_but_markers_is_empty(node: Node, server_url: str, copies: Copies) -> None:
    copies.do("LPUSH", "wait", "0:0")
    assert await drain(node, server_url, copies) == []


OLD_RECORDS: dict[str, dict[str, Json]] = {
    "nothing but a name": {"opts": None, "data": None, "timestamp": None},
    "a bare backoff": {"opts": json.dumps({"attempts": 3, "backoff": 250})},
    "attempts in words": {"attemptsMade": 2, "opts": json.dumps({"attempts": 5})},
    "both spellings of attempts": {"attemptsMade": 2, "atm": 1, "ats": 3},
    "long names of options": {
        "opts": json.dumps({"keepLogs": 3, "ignoreDependencyOnFailure": True, "delay": 5, "removeOnFail": 7})
    },
    "times with fractions": {"timestamp": f"{LONG_AGO}.75", "delay": "0"},
    "a failure": {"failedReason": "broken", "stacktrace": '["Error: broken"]', "atm": 1},
    "a progress": {"progress": "42", "processedOn": LONG_AGO, "delay": 0},
}


@pytest.mark.parametrize("name", OLD_RECORDS)
async def test_an_old_record_reads_the_same(node: Node, server_url: str, copies: Copies, name: str) -> None:
    """Fields that are missing, or are spelt as they were, mean to toril what they mean to Node, and it runs."""
    copies.job("a", "wait", **OLD_RECORDS[name])
    async with NodeQueue(node, "tests", prefix=copies.prefixes[0]) as theirs:
        seen = await theirs.job("a")
    async with Queue("tests", connection=server_url, prefix=copies.prefixes[1]) as ours:
        job = await ours.get_job("a")
    assert seen is not None
    assert job is not None
    assert (job.data, job.progress, job.failed_reason) == (
        seen["data"], seen["progress"], seen.get("failedReason"),
    )  # fmt: skip
    assert (job.attempts_made, job.attempts_started) == (seen["attemptsMade"], seen["attemptsStarted"])
    assert (job.timestamp, job.stacktrace) == (seen["timestamp"] or 0, seen["stacktrace"] or [])
    assert (job.options.attempts or 0) == seen["opts"]["attempts"]
    assert await drain(node, server_url, copies) == ["a"]


async def test_a_repeatable_job_is_refused(
    node: Node, server_url: str, copies: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pending job still runs, none follows, and an error names the queue, the key and the remedy."""
    job_id = f"repeat:0db2bfce805d59959076cb39aff2f834:{LONG_AGO}"
    repeat = {"count": 1, "every": 60000}
    options = {"attempts": 0, "repeat": repeat, "jobId": job_id, "prevMillis": LONG_AGO}
    copies.job(job_id, "wait", name="report", rjk=REPEATABLE, opts=json.dumps(options))
    copies.do("ZADD", "repeat", LONG_AGO, REPEATABLE)
    copies.do("HSET", f"repeat:{REPEATABLE}", "name", "report", "every", 60000)
    queue = Queue("tests", connection=server_url, prefix=copies.prefixes[1])

    async with NodeWorker(node, "tests", {"*": [[["return", 1]]]}, prefix=copies.prefixes[0]) as theirs:
        told = await theirs.event("error")
        await theirs.event("completed", job_id)
    assert "Legacy repeatable" in told.args[0]["message"]
    worker = Worker(queue, lambda _: 1)
    heard = Heard(worker, "error", "completed")
    with caplog.at_level(logging.ERROR, "toril"):
        async with worker:
            (_, error), _ = await heard.wait(2)
    assert isinstance(error, ConfigurationError)
    for part in ("'tests'", REPEATABLE, "remove_job_scheduler", "upsert_job_scheduler"):
        assert part in str(error)
        assert part in caplog.text
    node_keys, toril_keys = copies.keys()
    assert keyspace.difference(node_keys, toril_keys) == []

    with pytest.raises(ConfigurationError, match=r"'tests'.*repeatable job of BullMQ 5"):
        await queue.upsert_job_scheduler(REPEATABLE, every=60)
    async with NodeQueue(node, "tests", prefix=copies.prefixes[0]) as node_queue:
        assert await node_queue.call("removeJobScheduler", REPEATABLE) is True
    assert await queue.remove_job_scheduler(REPEATABLE)
    await queue.close()
    node_keys, toril_keys = copies.keys()
    assert keyspace.difference(node_keys, toril_keys) == []


# --- BullMQ 5 itself --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node5(server: EmbeddedServer) -> Iterator[Node]:
    """The last version before 6, on the session's server."""
    reason = why_no_node()
    if reason is None and not (INTEROP / "node_modules" / "bullmq5").is_dir():
        reason = "BullMQ 5 is not installed: make test installs it"
    if reason is not None:
        pytest.skip(reason)
    node = Node(server.url, "bullmq5")
    yield node
    node.stop()


async def test_what_bullmq_5_wrote_is_drained_as_6_does(
    node: Node, node5: Node, server_url: str, copies: Copies
) -> None:
    """Jobs of every kind, flows, and what its worker failed, in a queue that it has paused."""
    for prefix in copies.prefixes:
        async with NodeQueue(node5, "tests", prefix=prefix) as queue:
            await node5.ask("clock", now=LONG_AGO)
            await queue.add("failing", {}, jobId="failing", attempts=2, keepLogs=3, stackTraceLimit=1)
            script = {"*": [[["log", "a"], ["progress", 5], ["throw", {"message": "5", "stack": "5"}]]]}
            async with NodeWorker(node5, "tests", script, prefix=prefix) as worker:
                await worker.event("failed", "failing", times=2)
            await queue.add("first", {"a": 1}, jobId="first")
            await queue.add("priority", None, jobId="priority", priority=7)
            await queue.add("delayed", {}, jobId="late", delay=1000, backoff=9, attempts=2)
            await queue.add("unique", {}, jobId="unique", deduplication={"id": "d"})
            await queue.call("pause")
            await queue.add("paused", {}, jobId="last", lifo=True)
            leaf = {
                "name": "leaf",
                "queueName": "tests",
                "opts": {"jobId": "leaf", "failParentOnFailure": True},
            }
            root = {"name": "root", "queueName": "tests", "opts": {"jobId": "root"}, "children": [leaf]}
            async with NodeFlows(node5, prefix=prefix) as flows:
                await flows.call("add", root)
            await node5.ask("clock", now=None)
    await ask(
        node,
        server_url,
        copies,
        "failing",
        "first",
        "priority",
        "late",
        "unique",
        "last",
        "leaf",
        "root",
    )

    async with Queue("tests", connection=server_url, prefix=copies.prefixes[1]) as ours:
        failing = await ours.get_job("failing")
        assert failing is not None
        assert (failing.failed_reason, failing.attempts_made, failing.progress) == ("5", 2, 5)
        assert (await failing.get_state(), failing.stacktrace) == ("failed", ["5"])
        assert (await ours.get_job_logs("failing")).logs == ["a", "a"]
        await failing.retry()
    async with NodeQueue(node, "tests", prefix=copies.prefixes[0]) as theirs:
        await theirs.on_job("failing", "retry")
    ran = await drain(node, server_url, copies, resume=True)
    assert sorted(ran) == ["failing", "first", "last", "late", "leaf", "priority", "root", "unique"]


async def test_a_repeatable_job_of_5_goes_on_as_a_scheduler(
    node: Node, node5: Node, server_url: str, prefix: str, queue: Queue
) -> None:
    """Its last versions keep them under a hash, which Node 6 takes for a scheduler's id: so does toril."""
    async with NodeQueue(node5, "tests", prefix=prefix) as queue5:
        await queue5.add("tick", {}, repeat={"every": 60})
        async with Worker(queue, lambda _: "toril"):
            await until("two runs by toril", lambda: _completed(queue, 2))
        async with NodeWorker(node, "tests", {"*": [[["return", "node"]]]}, prefix=prefix):
            await until("two more by Node", lambda: _completed(queue, 4))
        async with Worker(queue, lambda _: "toril"):
            await until("two more by toril", lambda: _completed(queue, 6))
    (scheduler,) = await queue.get_job_schedulers()
    jobs = await queue.get_completed(ascending=True)
    assert scheduler.every_ms == 60
    assert scheduler.iterations >= 6
    assert Counter(str(job.return_value) for job in jobs).keys() == {"node", "toril"}
    assert len({job.id for job in jobs}) == len(jobs)


async def _completed(queue: Queue, count: int) -> bool:
    return (await queue.get_job_counts("completed"))["completed"] >= count


async def test_a_fleet_of_5_and_6_and_toril_shares_a_queue(
    node: Node, node5: Node, queue: Queue, node_events: NodeEvents, prefix: str
) -> None:
    """With a worker of each, jobs from each run once, retries move between them, and flows are released."""
    ran: list[str] = []

    async def process(job: Job) -> None:
        ran.append(job.id)
        await asyncio.sleep(0.001)
        if job.attempts_started == 1 and job.name == "flaky":
            raise ValueError

    flaky = [[["throw", {"message": ""}]], [["sleep", 1]]]
    script = {"flaky": flaky, "*": [[["sleep", 1]]]}
    async with (
        NodeQueue(node5, "tests", prefix=prefix) as queue5,
        NodeWorker(node5, "tests", script, prefix=prefix, concurrency=2) as worker5,
        NodeWorker(node, "tests", script, prefix=prefix, concurrency=2) as worker6,
        Worker(queue, process, concurrency=2),
    ):
        for turn in range(1, 6):
            await queue5.call(
                "addBulk",
                [
                    {"name": "work", "data": {}, "opts": {"priority": n % 3, "delay": n % 2}}
                    for n in range(20)
                ],
            )
            await queue.add_bulk(NewJob("flaky", None, {"attempts": 2, "backoff": 0.01}) for _ in range(10))
            leaf = {"name": "leaf", "queueName": "tests"}
            async with NodeFlows(node5, prefix=prefix) as flows:
                await flows.call("add", {"name": "root", "queueName": "tests", "children": [leaf, leaf]})
            await node_events.event("completed", times=33 * turn)
        states: dict[State, int] = await queue.get_job_counts()
    assert {state: count for state, count in states.items() if count} == {"completed": 33 * 5}
    by = [ran, *([str(e.job_id) for e in worker.told("active")] for worker in (worker5, worker6))]
    starts = Counter(job_id for ids in by for job_id in ids)
    assert sorted(Counter(starts.values()).items()) == [(1, 23 * 5), (2, 10 * 5)]
    assert all(by)


async def test_toril_leaves_no_job_behind_a_pause_by_5(
    node5: Node, queue: Queue, node_events: NodeEvents, prefix: str
) -> None:
    """5 moves what waits into `paused`, and toril brings it back; the reverse needs a 5 that reads `wait`."""
    await queue.add("work", job_id="before")
    async with NodeQueue(node5, "tests", prefix=prefix) as queue5:
        await queue5.call("pause")
        assert await queue.is_paused()
        await queue5.add("work", {}, jobId="by-5")
        await queue.add("work", job_id="by-toril")
        async with Worker(queue, lambda job: job.id):
            await queue.resume()
            await node_events.event("completed", times=3)
        with pytest.raises(NodeError):
            await queue5.on_job("nobody", "promote")
    assert await queue.count() == 0
