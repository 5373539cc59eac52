"""Job schedulers that Node and toril share: defined here and run there, handed to and fro, read by both."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.patience import until
from toril import Job, Queue, Worker

from .node import Node, NodeQueue, NodeWorker

Json = Any
EVERY = 80


def in_order(queue_runs: list[str]) -> list[int]:
    return [int(job_id.rpartition(":")[2]) for job_id in queue_runs]


async def completed(queue: Queue) -> list[Job]:
    return await queue.get_completed(ascending=True)


async def test_node_runs_what_toril_schedules(queue: Queue, node: Node, prefix: str) -> None:
    """Name, data and options arrive, and Node plans on: each run once, one pending."""
    await queue.upsert_job_scheduler(
        "s", every=EVERY / 1000, name="ping", data={"a": 1}, options={"attempts": 2}
    )
    async with NodeWorker(node, "tests", {"*": [[["return", 1]]]}, prefix=prefix):
        await until("five runs by Node", lambda: _count(queue, 5))
    jobs = await completed(queue)

    assert {(job.name, job.options.attempts, job.scheduler_id) for job in jobs} == {("ping", 2, "s")}
    assert [job.data for job in jobs] == [{"a": 1}] * len(jobs)
    assert await _pending(queue) == 1


async def test_toril_runs_what_node_schedules(queue: Queue, node_queue: NodeQueue) -> None:
    """By interval and by pattern, with a bare number as its backoff."""
    template = {"name": "ping", "data": {"a": 1}, "opts": {"attempts": 2, "backoff": 500}}
    await node_queue.call("upsertJobScheduler", "s", {"every": EVERY}, template)
    await node_queue.call("upsertJobScheduler", "c", {"pattern": "* * * * * *"}, template)

    async def process(job: Job) -> None: ...

    async with Worker(queue, process, concurrency=3):
        await until("runs of both", lambda: _both(queue))
    assert {job.name for job in await completed(queue)} == {"ping"}
    assert await _pending(queue) == 2
    assert await node_queue.call("getJobSchedulersCount") == 2


@pytest.mark.parametrize("by", ["node", "toril"])
async def test_a_scheduler_is_handed_to_and_fro(
    queue: Queue, node: Node, node_queue: NodeQueue, prefix: str, by: str
) -> None:
    """Workers take turns, then share: no run twice, none out of the grid, one pending."""
    if by == "node":
        await node_queue.call("upsertJobScheduler", "s", {"every": EVERY})
    else:
        await queue.upsert_job_scheduler("s", every=EVERY / 1000)

    async def process(job: Job) -> str:
        return "toril"

    def node_worker() -> NodeWorker:
        return NodeWorker(node, "tests", {"*": [[["return", "node"]]]}, prefix=prefix)

    for turn in range(1, 4):
        async with Worker(queue, process):
            await until("runs by toril", lambda turn=turn: _count(queue, turn * 6 - 3))
        async with node_worker():
            await until("runs by Node", lambda turn=turn: _count(queue, turn * 6))
    async with AsyncExitStack() as both:
        await both.enter_async_context(Worker(queue, process))
        await both.enter_async_context(node_worker())
        await until("runs by both", lambda: _count(queue, 30))

    jobs = await completed(queue)
    times = in_order([job.id for job in jobs])
    assert len(set(times)) == len(times)
    assert {(time - times[0]) % EVERY for time in times} == {0}
    assert {job.return_value for job in jobs} == {"node", "toril"}
    assert {job.attempts_made for job in jobs} == {1}
    assert await _pending(queue) == 1


async def test_both_redefine_it(queue: Queue, node_queue: NodeQueue) -> None:
    """Whoever upserts last defines all of it, a policy for missed runs included, which Node does not know."""
    await queue.upsert_job_scheduler("s", pattern="0 3 * * *", tz="Europe/Stockholm", missed="all", limit=5)
    seen = await node_queue.call("getJobScheduler", "s")
    assert (seen["pattern"], seen["tz"], seen["limit"]) == ("0 3 * * *", "Europe/Stockholm", 5)

    await node_queue.call(
        "upsertJobScheduler", "s", {"pattern": "0 4 * * *", "tz": "Asia/Tokyo"}, {"data": [1]}
    )
    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert (scheduler.pattern, scheduler.tz, scheduler.limit) == ("0 4 * * *", "Asia/Tokyo", None)
    assert (scheduler.missed, scheduler.data) == ("skip", [1])
    assert await _pending(queue) == 1


async def test_a_policy_survives_nodes_runs(queue: Queue, node: Node, prefix: str) -> None:
    """A Node worker skips missed runs itself, and leaves the record's policy to the next toril worker."""
    await queue.upsert_job_scheduler("s", every=EVERY / 1000, missed="all")
    async with NodeWorker(node, "tests", {"*": [[["return", 1]]]}, prefix=prefix):
        await until("two runs by Node", lambda: _count(queue, 2))

    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert scheduler.missed == "all"


async def test_each_removes_the_others(queue: Queue, node_queue: NodeQueue) -> None:
    """With the pending job."""
    await queue.upsert_job_scheduler("a", pattern="0 3 * * *")
    await node_queue.call("upsertJobScheduler", "b", {"pattern": "0 3 * * *"})

    assert await node_queue.call("removeJobScheduler", "a") is True
    assert await queue.remove_job_scheduler("b")
    assert await queue.get_job_schedulers_count() == await _pending(queue) == 0


async def _count(queue: Queue, most: int) -> bool:
    return (await queue.get_job_counts("completed"))["completed"] >= most


async def _both(queue: Queue) -> bool:
    ran = [job.scheduler_id for job in await completed(queue)]
    return ran.count("s") >= 4 and ran.count("c") >= 2


async def _pending(queue: Queue) -> int:
    return sum((await queue.get_job_counts("delayed", "waiting", "prioritized")).values())
