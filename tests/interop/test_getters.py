"""The same getters on both sides answer the same about the same queue; and events of one's own cross over."""

from __future__ import annotations

from typing import Any

from tests.patience import within
from toril import FlowJob, FlowProducer, Job, Queue, QueueEvents, QueueEventsProducer, Worker

from .node import Node, NodeEvents, NodeProducer, NodeQueue

Json = Any


async def test_prometheus_text_is_nodes(queue: Queue, node_queue: NodeQueue) -> None:
    """Letter by letter, with and without labels of one's own."""

    async def process(job: Job) -> None:
        if job.name == "bad":
            raise ValueError

    async with Worker(queue, process, metrics_points=5) as worker, within("two ends"):
        left = 2

        def count(*_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                worker.stop()

        worker.on("completed", count)
        worker.on("failed", count)
        await queue.add_bulk([("good", 1), ("bad", 2)])
    await queue.add("later", delay=3600)

    for labels in ({}, {"env": "test", "odd": 'a"b\\c\nd'}):
        assert await queue.export_prometheus_metrics(labels) == await node_queue.call(
            "exportPrometheusMetrics", labels
        )


async def test_events_of_ones_own_cross_over(
    node: Node, queue: Queue, node_queue: NodeQueue, node_events: NodeEvents, server_url: str
) -> None:
    """Published in Python, heard in Node, and the other way round."""
    async with QueueEventsProducer("tests", connection=server_url, prefix=queue.prefix) as producer:
        place = await producer.publish_event("restocked", {"jobId": "9", "left": 3})
    told = await node_events.event("restocked")
    assert told.args == [{"jobId": "9", "left": "3"}, place]

    async with (
        QueueEvents("tests", connection=server_url, prefix=queue.prefix) as events,
        NodeProducer(node, "tests", prefix=queue.prefix) as node_producer,
    ):
        await node_producer.call("publishEvent", {"eventName": "sold-out", "jobId": "10", "what": "plaster"})
        async with within("Node's event"):
            async for event in events:
                assert (event.name, event.fields) == ("sold-out", {"jobId": "10", "what": "plaster"})
                break


async def test_counts_and_children_are_nodes(queue: Queue, node_queue: NodeQueue, server_url: str) -> None:
    """Counts per state, of several, of children by kind, and a job's whole record."""
    children = [FlowJob("child", "tests", {"n": n}) for n in range(3)]
    async with FlowProducer(connection=server_url, prefix=queue.prefix) as flows:
        flow = await flows.add(FlowJob("parent", "tests", children=children))
    taker = Worker(queue, print)
    first = await taker.get_next_job()
    assert first is not None
    await first.move_to_completed({"done": True})
    await queue.add("urgent", priority=3)

    assert await queue.get_job_counts() == await node_queue.call("getJobCounts")
    assert await queue.get_job_count_by_types("waiting", "prioritized") == await node_queue.call(
        "getJobCountByTypes", "waiting", "prioritized"
    )
    for getter, name in [
        (queue.get_waiting_count, "getWaitingCount"),
        (queue.get_completed_count, "getCompletedCount"),
        (queue.get_waiting_children_count, "getWaitingChildrenCount"),
        (queue.count, "count"),
        (queue.get_version, "getVersion"),
    ]:
        assert await getter() == await node_queue.call(name), name
    counts = await flow.job.get_dependencies_count()
    theirs = await node_queue.on_job(flow.job.id, "getDependenciesCount")
    assert theirs == {"processed": 1, "unprocessed": 2, "ignored": 0, "failed": 0}
    assert [counts.processed, counts.unprocessed, counts.ignored, counts.failed] == [1, 2, 0, 0]

    pages = await node_queue.on_job(flow.job.id, "getDependencies", {"processed": {"cursor": 0, "count": 5}})
    assert (await flow.job.get_dependencies_page("processed", 0, 5)).values == pages["processed"]
    pending = await node_queue.call("getDependencies", flow.job.id, "pending", 0, -1)
    ours = await queue.get_dependencies(flow.job.id, "pending")
    assert (len(ours.jobs), ours.total) == (len(pending["jobs"]), pending["total"]) == (2, 2)

    for job_id in (first.id, flow.job.id, children_of(flow)[-1].id):
        job = await queue.get_job_or_raise(job_id)
        shown = await node_queue.on_job(job_id, "toJSON")
        assert {name: value for name, value in job.to_json().items() if value is not None} == {
            name: value for name, value in shown.items() if value is not None
        }


def children_of(flow: Any) -> list[Job[Any]]:
    return [child.job for child in flow.children]
