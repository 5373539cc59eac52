"""Flows of both languages: a parent here and its children there, both ways round, on two queues and on one."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any, Literal, cast, get_args

import pytest

from tests.patience import ended, until
from toril import FlowJob, FlowProducer, Job, JobOptions, Parent, Queue, WaitingChildrenError, Worker
from toril.states import State

from .node import Node, NodeFlows, NodeQueue, NodeWorker

Json = Any
Language = Literal["node", "python"]
Policy = Literal[
    "failParentOnFailure",
    "continueParentOnFailure",
    "ignoreDependencyOnFailure",
    "removeDependencyOnFailure",
    "none",
]

SCRIPT = {"bad": [[["throw", {"message": "broken"}]]], "*": [[["return-children"]]]}


async def process(job: Job) -> list[Json]:
    """Do what SCRIPT says."""
    if job.name == "bad":
        raise ValueError("broken")
    return list((await job.get_children_values()).values())


def nodes_options(policy: Policy) -> dict[str, bool]:
    return {} if policy == "none" else {policy: True}


def torils_options(policy: Policy) -> JobOptions:
    if policy == "none":
        return JobOptions()
    snake = re.sub("([A-Z])", lambda capital: f"_{capital[0].lower()}", policy)
    return cast("JobOptions", {snake: True})


async def add_flow(by: Language, node: Node, url: str, prefix: str, policy: Policy) -> None:
    """Root in `tests` over mid in `parts` over good and bad, in `tests` again; `policy` holds on both levels."""
    if by == "node":
        opts = nodes_options(policy)
        leaves = [
            {"name": name, "queueName": "tests", "opts": {"jobId": name, **(opts if name == "bad" else {})}}
            for name in ("good", "bad")
        ]
        mid = {"name": "mid", "queueName": "parts", "opts": {"jobId": "mid", **opts}, "children": leaves}
        root = {"name": "root", "queueName": "tests", "opts": {"jobId": "root"}, "children": [mid]}
        async with NodeFlows(node, prefix=prefix) as flows:
            await flows.call("add", root)
        return
    options = torils_options(policy)
    leaves_ = [
        FlowJob("good", "tests", options=JobOptions(job_id="good")),
        FlowJob("bad", "tests", options=JobOptions({**options, "job_id": "bad"})),
    ]
    mid_ = FlowJob("mid", "parts", options=JobOptions({**options, "job_id": "mid"}), children=leaves_)
    async with FlowProducer(connection=url, prefix=prefix) as producer:
        await producer.add(FlowJob("root", "tests", options=JobOptions(job_id="root"), children=[mid_]))


async def outcome(tests: Queue, parts: Queue, prefix: str) -> dict[str, Json]:
    """How the four jobs stand: state, reason, value, and their children. Keys without the prefix."""
    found: dict[str, Json] = {}
    for queue, job_id in ((tests, "root"), (parts, "mid"), (tests, "good"), (tests, "bad")):
        job = await queue.get_job(job_id)
        assert job is not None
        of = await job.get_dependencies()
        found[job_id] = (
            await job.get_state(),
            (job.failed_reason or "").replace(prefix, "PREFIX"),
            job.return_value,
            job.attempts_started,
            [_without(prefix, kind) for kind in (of.processed, of.unprocessed, of.ignored, of.failed)],
        )
    return found


def _without(prefix: str, keys: Json) -> Json:
    if isinstance(keys, dict):
        return {key.removeprefix(prefix): value for key, value in keys.items()}
    return [key.removeprefix(prefix) for key in keys]


EXPECTED: dict[Policy, tuple[State, State]] = {
    "failParentOnFailure": ("failed", "failed"),
    "continueParentOnFailure": ("completed", "completed"),
    "ignoreDependencyOnFailure": ("completed", "completed"),
    "removeDependencyOnFailure": ("completed", "completed"),
    "none": ("waiting-children", "waiting-children"),
}


@pytest.mark.parametrize("policy", get_args(Policy))
async def test_a_failure_climbs_through_both_languages(
    node: Node, server_url: str, prefix: str, policy: Policy
) -> None:
    """With either language above, and either adding it, a nested flow ends as it does in Node alone."""

    async def run(number: int, above: Language, below: Language, by: Language) -> dict[str, Json]:
        own = f"{prefix}:{number}"
        await add_flow(by, node, server_url, own, policy)
        async with AsyncExitStack() as stack:
            tests, parts = [
                await stack.enter_async_context(Queue(name, connection=server_url, prefix=own))
                for name in ("tests", "parts")
            ]
            for queue, language in ((tests, above), (parts, below)):
                # One at a time: `good` is done when `bad` fails.
                worker = (
                    NodeWorker(node, queue.name, SCRIPT, prefix=own)
                    if language == "node"
                    else Worker(queue, process)
                )
                await stack.enter_async_context(worker)
            last = await (tests.get_job("bad") if policy == "none" else tests.get_job("root"))
            assert last is not None
            await ended(last)
            return await outcome(tests, parts, own)

    alone, *mixed = await asyncio.gather(
        run(0, "node", "node", "node"),
        run(1, "node", "python", "node"),
        run(2, "python", "node", "python"),
        run(3, "node", "python", "python"),
        run(4, "python", "node", "node"),
    )
    assert (alone["root"][0], alone["mid"][0]) == EXPECTED[policy]
    assert mixed == [alone] * 4


async def test_flows_on_one_queue_run_in_both_languages(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """Of 20 nested flows from both sides, on one queue with a worker of each, every parent gets its values."""
    kids = [("a", "leaf"), ("b", "leaf")]
    producer = FlowProducer(connection=queue.connection, prefix=prefix)
    for number in range(10):
        await producer.add(
            FlowJob(
                "root",
                "tests",
                options=JobOptions(job_id=f"python-{number}"),
                children=[FlowJob("mid", "tests", children=[FlowJob(name, "tests") for name, _ in kids])] * 2,
            )
        )
    async with NodeFlows(node, prefix=prefix) as flows:
        leaves = [{"name": name, "queueName": "tests"} for name, _ in kids]
        mid = {"name": "mid", "queueName": "tests", "children": leaves}
        root = {"name": "root", "queueName": "tests", "children": [mid, mid]}
        await flows.call("addBulk", [{**root, "opts": {"jobId": f"node-{n}"}} for n in range(10)])

    ran: list[str | None] = []

    async def work(job: Job) -> list[Json]:
        ran.append(job.id)
        await asyncio.sleep(0.001)
        return list((await job.get_children_values()).values())

    script = {"*": [[["sleep", 1], ["return-children"]]]}
    async with NodeWorker(node, "tests", script, prefix=prefix, concurrency=2) as worker, Worker(queue, work):
        roots = [await queue.get_job(f"{side}-{n}") for side in ("python", "node") for n in range(10)]
        values = await ended(*(root for root in roots if root is not None))
    assert values == [[[[], []], [[], []]]] * 20
    by_node = [event.job_id for event in worker.told("active")]
    assert len(ran) + len(by_node) == len({*ran, *by_node}) == 20 * 7
    assert ran
    assert by_node
    assert await node_queue.counts() == {"completed": 140}


async def test_node_runs_children_that_a_python_parent_adds_as_it_runs(
    node: Node, queue: Queue, prefix: str
) -> None:
    """The parent waits in between, its worker takes other jobs, and it runs again with their values."""
    children = NodeWorker(node, "parts", {"*": [[["return", 7]]]}, prefix=prefix)
    async with Queue("parts", connection=queue.connection, prefix=prefix) as parts:

        async def parent(job: Job) -> Json:
            if job.attempts_started == 1:
                for name in ("x", "y"):
                    await parts.add(name, job_id=name, parent=job)
                raise WaitingChildrenError
            return await job.get_children_values()

        job = await queue.add("parent")
        async with Worker(queue, parent):
            await until("the parent to wait", job.is_waiting_children)
            async with children:
                (values,) = await ended(job)
    assert values == {f"{prefix}:parts:x": 7, f"{prefix}:parts:y": 7}
    await job.refresh()
    assert (job.attempts_started, job.attempts_made) == (2, 1)


async def test_python_runs_children_that_a_node_parent_adds_as_it_runs(
    node: Node, queue: Queue, node_queue: NodeQueue, prefix: str
) -> None:
    """The same the other way round."""
    start = [["add-children", {"queue": "parts", "names": ["x", "y"]}], ["wait-for-children"]]
    script = {"parent": [start, [["return-children"]]]}
    added = await node_queue.add("parent", {})
    job = await queue.get_job(added["id"])
    assert job is not None

    async def child(job: Job) -> str:
        return job.name.upper()

    async with NodeWorker(node, "tests", script, prefix=prefix):
        await until("the parent to wait", job.is_waiting_children)
        async with (
            Queue("parts", connection=queue.connection, prefix=prefix) as parts,
            Worker(parts, child),
        ):
            (values,) = await ended(job)
    assert sorted(values) == ["X", "Y"]
    await job.refresh()
    assert (job.attempts_started, job.attempts_made) == (2, 1)


async def test_both_read_each_others_flows(node: Node, server_url: str, queue: Queue, prefix: str) -> None:
    """get_flow and getFlow return one tree, whoever added it; a link that one breaks is broken for the other."""
    await add_flow("node", node, server_url, prefix, "ignoreDependencyOnFailure")
    producer = FlowProducer(connection=queue.connection, prefix=prefix)
    flow = await producer.get_flow("tests", "root")
    assert flow is not None
    assert [job.id for job in flow] == ["root", "mid", *(child.job.id for child in flow.children[0].children)]
    async with NodeFlows(node, prefix=prefix) as flows:
        seen = await flows.call("getFlow", {"id": "root", "queueName": "tests"})
    (mid,) = seen["children"]
    assert {child["job"]["id"] for child in mid["children"]} == {"good", "bad"}

    late = await queue.add("late", job_id="late", parent=Parent("mid", f"{prefix}:parts"))
    assert (await flow.children[0].job.get_dependencies_count()).unprocessed == 3
    assert await late.remove_child_dependency()
    async with NodeQueue(node, "tests", prefix=prefix) as node_queue:
        assert await node_queue.on_job("good", "removeChildDependency") is True
    assert [
        key.rpartition(":")[2] for key in (await flow.children[0].job.get_dependencies()).unprocessed
    ] == ["bad"]
