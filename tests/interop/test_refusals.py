"""What Node refuses, toril refuses: each return code of a script, and each rule for what is added.

Both do the same act on the same queue, one after the other, which shows that a refusal changes nothing. toril's error
is one of a type of its own, and names the job, the queue and the remedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio

from tests.differential import keyspace
from toril import (
    ConfigurationError,
    Deduplication,
    Exponential,
    FailedChildrenError,
    FlowJob,
    FlowProducer,
    Job,
    JobNotFoundError,
    JobNotInStateError,
    JobOptions,
    LockLostError,
    Parent,
    ParentNotFoundError,
    ParentTakenError,
    PendingChildrenError,
    Queue,
    QueueNotEmptyError,
    SchedulerJobError,
    SchedulerSlotError,
    SerializationError,
    TorilError,
    TransitionError,
)
from toril.embedded import EmbeddedServer

from .node import Node, NodeError, NodeFlows, NodeQueue, NodeWorker

Json = Any
TOKEN = "t"
"""Of the lock on every job that somebody holds."""


@dataclass
class Room:
    """A queue, as both open it, and a Node worker that takes jobs when told to."""

    queue: Queue
    node_queue: NodeQueue
    worker: NodeWorker
    client: redis.asyncio.Redis

    async def add(self, job_id: str = "a", **options: Json) -> Job:
        return await self.queue.add("work", job_id=job_id, **options)

    async def take(self) -> None:
        await self.worker.node.ask("take", worker=self.worker.handle, token=TOKEN)

    async def ours(self, job_id: str = "a") -> Job:
        """The job as a worker of toril's holds it."""
        return Job(self.queue, job_id, {}, TOKEN)

    async def complete_in_node(self, job_id: str = "a") -> Json:
        return await self.worker.node.ask(
            "complete", worker=self.worker.handle, jobId=job_id, token=TOKEN, value=1
        )

    def key(self, suffix: str) -> str:
        return self.queue.keys.key(suffix)

    def parent(self, job_id: str) -> Parent:
        return Parent(job_id, self.queue.qualified_name)


@pytest.fixture
async def room(
    node: Node, queue: Queue, node_queue: NodeQueue, client: redis.asyncio.Redis, prefix: str
) -> AsyncIterator[Room]:
    async with NodeWorker(node, "tests", None, prefix=prefix) as worker:
        yield Room(queue, node_queue, worker, client)


Act = Callable[[Room], Awaitable[Any]]


@dataclass
class Case:
    """An act, in Node and in toril, and how each refuses it."""

    prepare: Act
    node: Act
    toril: Act
    nodes_words: str
    kind: type[TorilError]
    remedy: str
    job_id: str | None = "a"


async def nothing(room: Room) -> None: ...


async def held(room: Room) -> None:
    await room.add()
    await room.take()


async def held_without_lock(room: Room) -> None:
    await held(room)
    await room.client.delete(room.key("a:lock"))


async def held_by_another(room: Room) -> None:
    await held(room)
    await room.client.set(room.key("a:lock"), "somebody else's", keepttl=True)


async def with_a_pending_child(room: Room) -> None:
    await held(room)
    await room.add("child", parent=room.parent("a"))


async def with_a_failed_child(room: Room) -> None:
    await with_a_pending_child(room)
    await room.client.srem(room.key("a:dependencies"), room.key("child"))
    await room.client.zadd(room.key("a:unsuccessful"), {room.key("child"): 1})


async def child_of_another(room: Room) -> None:
    await room.add("first")
    await room.add("second")
    await room.add("a", parent=room.parent("first"))


async def scheduler(room: Room) -> None:
    await room.queue.upsert_job_scheduler("s", pattern="0 0 1 1 *", tz="UTC")


async def slot_taken(room: Room) -> None:
    await scheduler(room)
    # As if somebody had removed the scheduler alone, with a run that is under way.
    await room.client.delete(room.key("repeat"), room.key("delayed"))


START = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
START_MS = int(START.timestamp() * 1000)


async def all_slots_taken(room: Room) -> None:
    for slot in range(33):
        await room.client.hset(room.key(f"repeat:s:{START_MS + slot * 1000}"), "name", "a run")


async def add_with_parent(room: Room, parent: str) -> Json:
    link = {"id": parent, "queue": room.queue.qualified_name}
    return await room.node_queue.add("work", {}, jobId="a", parent=link)


async def runs_of(room: Room) -> str:
    return str((await room.client.zrange(room.key("delayed"), 0, 0))[0])


CASES: dict[str, Case] = {
    "-1, no such job": Case(
        nothing,
        lambda room: room.node_queue.call("updateJobProgress", "a", 1),
        lambda room: Job(room.queue, "a", {}).update_progress(1),
        "Missing key for job a",
        JobNotFoundError,
        "queue name or prefix",
    ),
    "-2 of obliterate, jobs are running": Case(
        held,
        lambda room: room.node_queue.call("obliterate"),
        lambda room: room.queue.obliterate(),
        "active jobs",
        QueueNotEmptyError,
        "stop its workers, or obliterate(force=True)",
        job_id=None,
    ),
    "-2, no lock": Case(
        held_without_lock,
        lambda room: room.complete_in_node(),
        lambda room: _complete(room),
        "Missing lock for job a",
        LockLostError,
        "lock_duration",
    ),
    "-3, not delayed": Case(
        lambda room: room.add(),
        lambda room: room.node_queue.on_job("a", "promote"),
        lambda room: Job(room.queue, "a", {}).promote(),
        "Job a is not in the delayed state",
        JobNotInStateError,
        "get_state",
    ),
    "-3, not finished": Case(
        lambda room: room.add(),
        lambda room: room.node_queue.on_job("a", "retry"),
        lambda room: Job(room.queue, "a", {}).retry(),
        "Job a is not in the failed state",
        JobNotInStateError,
        "get_state",
    ),
    "-3, not delayed, to change it": Case(
        lambda room: room.add(),
        lambda room: room.node_queue.on_job("a", "changeDelay", 5),
        lambda room: Job(room.queue, "a", {}).change_delay(5),
        "Job a is not in the delayed state",
        JobNotInStateError,
        "get_state",
    ),
    "-4, children pending": Case(
        with_a_pending_child,
        lambda room: room.complete_in_node(),
        lambda room: _complete(room),
        "Job a has pending dependencies",
        PendingChildrenError,
        "WaitingChildrenError",
    ),
    "-5, no such parent": Case(
        nothing,
        lambda room: add_with_parent(room, "nobody"),
        lambda room: room.add("a", parent=room.parent("nobody")),
        "Missing key for parent job",
        ParentNotFoundError,
        "add that first",
    ),
    "-6, another's lock": Case(
        held_by_another,
        lambda room: room.complete_in_node(),
        lambda room: _complete(room),
        "Lock mismatch for job a",
        LockLostError,
        "lock_duration",
    ),
    "-7, another's child": Case(
        child_of_another,
        lambda room: add_with_parent(room, "second"),
        lambda room: room.add("a", parent=room.parent("second")),
        "cannot be replaced",
        ParentTakenError,
        "remove_child_dependency",
    ),
    "-8, a scheduler's run": Case(
        scheduler,
        lambda room: _remove_in_node(room),
        lambda room: _remove(room),
        "belongs to a job scheduler",
        SchedulerJobError,
        "remove the scheduler",
        job_id="repeat:s:",
    ),
    "-9, a child failed": Case(
        with_a_failed_child,
        lambda room: room.complete_in_node(),
        lambda room: _complete(room),
        "Cannot complete job a because it has at least one failed child",
        FailedChildrenError,
        "ignore_dependency_on_failure",
    ),
    "-10, the pattern's time is taken": Case(
        slot_taken,
        lambda room: room.node_queue.call("upsertJobScheduler", "s", {"pattern": "0 0 1 1 *", "tz": "UTC"}),
        scheduler,
        "job ID already exists",
        SchedulerSlotError,
        "remove them",
        job_id="repeat:s",
    ),
    "-11, all of the interval's times are taken": Case(
        all_slots_taken,
        lambda room: room.node_queue.call("upsertJobScheduler", "s", {"every": 1000, "startDate": START_MS}),
        lambda room: room.queue.upsert_job_scheduler("s", every=1, start_date=START),
        "slots already have jobs",
        SchedulerSlotError,
        "remove them",
        job_id="repeat:s",
    ),
}


async def _complete(room: Room) -> None:
    await (await room.ours()).move_to_completed(1)


async def _remove(room: Room) -> None:
    await room.queue.remove(await runs_of(room))


async def _remove_in_node(room: Room) -> None:
    await room.node_queue.call("remove", await runs_of(room))


@pytest.mark.parametrize("name", CASES)
async def test_a_return_code_is_a_typed_error(
    server: EmbeddedServer, room: Room, prefix: str, name: str
) -> None:
    """Node throws its message; toril raises a type that names the job, the queue and the remedy."""
    case = CASES[name]
    await case.prepare(room)
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        with pytest.raises(NodeError) as theirs:
            await case.node(room)
        before = keyspace.read(client, f"{prefix}:")
        with pytest.raises(TorilError) as ours:
            await case.toril(room)
        after = keyspace.read(client, f"{prefix}:")
    assert case.nodes_words in theirs.value.message
    error = ours.value
    assert type(error) is case.kind
    assert "'tests'" in str(error)
    assert case.remedy in str(error)
    if isinstance(error, TransitionError):
        assert error.job_id.startswith(case.job_id or "")
        assert error.queue == "tests"
    # Pausing before an obliteration and counting ids are what Node does in spite of its refusal.
    for space in (before, after):
        for key in ("tests:id", "tests:events", "tests:marker"):
            space.pop(key, None)
    assert keyspace.difference(before, after) == []


# --- before anything is sent ------------------------------------------------------------------

POLICIES = {"failParentOnFailure": True, "removeDependencyOnFailure": True}
PARENT = {"id": "p", "queue": "bull:other"}

RULES: dict[str, tuple[dict[str, Json], dict[str, Json]]] = {
    "size": ({"sizeLimit": 5}, {"size_limit": 5}),
    "priority with a fraction": ({"priority": 1.5}, {"priority": 1.5}),
    "priority too high": ({"priority": 2_097_152}, {"priority": 2_097_152}),
    "two policies": (
        {**POLICIES, "parent": PARENT},
        {
            "fail_parent_on_failure": True,
            "remove_dependency_on_failure": True,
            "parent": Parent("p", "bull:other"),
        },
    ),
    "all other policies": (
        {"ignoreDependencyOnFailure": True, "continueParentOnFailure": True, "parent": PARENT},
        {
            "ignore_dependency_on_failure": True,
            "continue_parent_on_failure": True,
            "parent": Parent("p", "bull:other"),
        },
    ),
    "deduplication without an id": ({"deduplication": {"id": ""}}, {"deduplication": Deduplication("")}),
    "deduplication and a parent": (
        {"deduplication": {"id": "d"}, "parent": PARENT},
        {"deduplication": Deduplication("d"), "parent": Parent("p", "bull:other")},
    ),
    "jitter": (
        {"attempts": 2, "backoff": {"type": "exponential", "delay": 1, "jitter": 2}},
        {"attempts": 2, "backoff": Exponential(base=1, jitter=2)},
    ),
    "debounce": ({"debounce": {"id": "d"}}, {"debounce": {"id": "d"}}),
    **{
        f"id {job_id!r}": ({"jobId": job_id}, {"job_id": job_id})
        for job_id in ("123", "-1", "0", "0:1", "a:b", "a:b:c:d")
    },
}


@pytest.mark.parametrize("name", RULES)
async def test_what_node_does_not_add_is_not_added(queue: Queue, node_queue: NodeQueue, name: str) -> None:
    """A typed error names the queue and the option, and nothing is stored."""
    nodes, torils = RULES[name]
    data = {"text": "åäö"}
    with pytest.raises(NodeError):
        await node_queue.add("work", data, **nodes)
    with pytest.raises((ConfigurationError, SerializationError)) as refused:
        await queue.add("work", data, **torils)
    assert "'tests'" in str(refused.value)
    assert re.search("size_limit|priority|policy|deduplication|jitter|debounce|job_id", str(refused.value))
    assert await queue.count() == await node_queue.call("count") == 0


@pytest.mark.parametrize("job_id", ["01", "1.0", "a:b:c", "åäö 7/ü", "", "-", "1e3"])
async def test_what_node_adds_is_added(queue: Queue, node_queue: NodeQueue, job_id: str) -> None:
    """Ids that look as if they might be refused are taken, and mean the same job; an empty one means none."""
    added = await node_queue.add("work", {}, jobId=job_id)
    job = await queue.add("work", job_id=job_id)
    assert (job.id == added["id"]) is (job_id != "")
    assert await queue.count() == (1 if job_id else 2)


async def test_a_size_is_counted_in_bytes(queue: Queue, node_queue: NodeQueue) -> None:
    """Of the data's JSON as UTF-8, to the byte."""
    data = "åäö"
    size = len(json.dumps(data, ensure_ascii=False).encode())
    await node_queue.add("work", data, sizeLimit=size)
    await queue.add("work", data, size_limit=size)
    with pytest.raises(NodeError):
        await node_queue.add("work", data, sizeLimit=size - 1)
    with pytest.raises(SerializationError):
        await queue.add("work", data, size_limit=size - 1)


async def test_a_parent_in_a_flow_is_not_deduplicated(node: Node, server_url: str, prefix: str) -> None:
    """Nor in Node."""
    async with NodeFlows(node, prefix=prefix) as flows:
        leaf = {"name": "leaf", "queueName": "tests"}
        root = {"name": "root", "queueName": "tests", "children": [leaf]}
        with pytest.raises(NodeError):
            await flows.call("add", {**root, "opts": {"deduplication": {"id": "d"}}})
    async with FlowProducer(connection=server_url, prefix=prefix) as producer:
        with pytest.raises(ConfigurationError, match="'root'"):
            await producer.add(
                FlowJob(
                    "root",
                    "tests",
                    options=JobOptions(deduplication=Deduplication("d")),
                    children=[FlowJob("leaf", "tests")],
                )
            )


@pytest.mark.parametrize("name", ["", "a:b"])
async def test_a_queues_name_is_checked(node: Node, server_url: str, prefix: str, name: str) -> None:
    """Neither empty nor with a colon."""
    with pytest.raises(NodeError):
        await NodeQueue(node, name, prefix=prefix).open()
    with pytest.raises(ConfigurationError, match="queue"):
        Queue(name, connection=server_url, prefix=prefix)
