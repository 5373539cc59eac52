"""Looking at a queue: counts, pages of children, listeners, metrics, Prometheus's text, and one job's whole record."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from tests.patience import like, until, within
from toril import (
    ConfigurationError,
    Deduplication,
    FlowJob,
    FlowProducer,
    Job,
    JobNotFoundError,
    Queue,
    QueueEvents,
    ServerRefusedError,
    ServerUnreachableError,
    Worker,
)
from toril.embedded import EmbeddedServer

Client: TypeAlias = Any


async def family(queue: Queue, server_url: str) -> Job[Any]:
    """A parent with children of each kind: two done, two ignored, two failed, two left."""

    async def process(job: Job) -> str:
        if job.name in ("ignored", "failed"):
            raise ValueError(f"no luck, {job.id}")
        return job.id

    def child(name: str, number: int, **options: Any) -> FlowJob:
        of_child: Any = {"job_id": f"{name}-{number}", **options}
        return FlowJob(name, "tests", options=of_child)

    ignoring: dict[str, Any] = {"ignore_dependency_on_failure": True}
    # The parent runs as soon as one fails it, and would find no worker here.
    failing: dict[str, Any] = {"fail_parent_on_failure": True}
    children = [
        *(child("done", number) for number in (1, 2)),
        *(child("ignored", number, **ignoring) for number in (1, 2)),
        *(child("failed", number, **failing) for number in (1, 2)),
        *(child("left", number, delay=3600) for number in (1, 2)),
    ]
    async with FlowProducer(connection=server_url, prefix=queue.prefix) as flows:
        flow = await flows.add(FlowJob("parent", "parents", children=children))
    async with Worker(queue, process) as worker, within("the children's ends"):
        drained = asyncio.Event()
        worker.on("drained", drained.set)
        await drained.wait()
    return flow.job


async def test_children_by_how_they_stand(queue: Queue, server_url: str) -> None:
    """All at once, counted, page by page, and by position: the same children each time."""
    parent = await family(queue, server_url)

    def keys(name: str) -> list[str]:
        return [queue.keys.job(f"{name}-{number}") for number in (1, 2)]

    known = await parent.get_dependencies()
    assert known.processed == dict(zip(keys("done"), ["done-1", "done-2"], strict=True))
    assert known.unprocessed == keys("left")
    assert known.ignored == {key: f"no luck, {key.rpartition(':')[2]}" for key in keys("ignored")}
    assert known.failed == keys("failed")
    counts = await parent.get_dependencies_count()
    assert (counts.processed, counts.unprocessed, counts.ignored, counts.failed) == (2, 2, 2, 2)

    processed = await parent.get_dependencies_page("processed")
    assert (processed.values, processed.next_cursor) == (known.processed, 0)
    assert sorted((await parent.get_dependencies_page("unprocessed")).keys) == known.unprocessed
    assert (await parent.get_dependencies_page("ignored")).values == known.ignored
    first = await parent.get_dependencies_page("failed", count=1)
    assert (first.keys, first.values, first.next_cursor) == (keys("failed")[:1], {}, 1)
    second = await parent.get_dependencies_page("failed", first.next_cursor, count=1)
    assert (second.keys, second.next_cursor) == (keys("failed")[1:], 0)
    with pytest.raises(ConfigurationError, match="processed, unprocessed, ignored, failed"):
        await parent.get_dependencies_page("pending")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="count"):
        await parent.get_dependencies_page("failed", count=0)

    async with Queue("parents", connection=server_url, prefix=queue.prefix) as parents:
        done = await parents.get_dependencies(parent.id, "processed", 1, 1)
        assert (next(iter(done.items.values()))[:5], len(done.items), done.total) == ("done-", 1, 2)
        assert done.jobs == []
        assert set((await parents.get_dependencies(parent.id, "pending")).items) == set(keys("left"))


async def test_very_many_children_come_in_pages(queue: Queue, client: Client) -> None:
    """Following the cursors to 0 finds each child, in bounded answers."""
    parent = await queue.add("parent")
    keys = [f"{queue.prefix}:other:child-{number}" for number in range(2_000)]
    await client.sadd(f"{queue.keys.job(parent.id)}:dependencies", *keys)

    found: list[str] = []
    cursor, calls = 0, 0
    while calls == 0 or cursor:
        page = await parent.get_dependencies_page("unprocessed", cursor, 100)
        assert len(page.keys) < 500
        found += page.keys
        cursor, calls = page.next_cursor, calls + 1
    assert sorted(set(found)) == sorted(keys)
    assert calls > 4


async def test_counts_of_each_state(queue: Queue) -> None:
    """Every state has its count and its list; several are added up."""
    await queue.add_bulk([("a", n) for n in range(3)])
    await queue.add("urgent", priority=2)
    await queue.add("later", delay=60)
    await queue.add("much-later", delay=3600)

    assert await queue.get_waiting_count() == 3
    assert await queue.get_prioritized_count() == 1
    assert await queue.get_delayed_count() == 2
    soon = datetime.now(UTC) + timedelta(minutes=10)
    assert await queue.get_delayed_count(before=soon) == 1
    for count in (
        queue.get_active_count,
        queue.get_completed_count,
        queue.get_failed_count,
        queue.get_waiting_children_count,
    ):
        assert await count() == 0
    assert await queue.get_waiting_children() == []
    assert await queue.get_job_count_by_types("waiting", "delayed") == 5
    assert await queue.get_job_count_by_types() == await queue.count() == 6


async def test_an_old_marker_is_no_job(queue: Queue, client: Client) -> None:
    """A wake-up marker that BullMQ 4 left where the next job would be is taken away when jobs are counted."""
    await queue.add("a", job_id="a")
    await client.rpush(queue.keys.key("wait"), "0:123")

    assert await queue.get_waiting_count() == 1
    assert await queue.get_ids("waiting") == ["a"]


async def test_who_works_and_who_listens_is_seen(queue: Queue, server_url: str) -> None:
    """By the names of their connections, and only those of this queue."""

    async def process(_: Job) -> None: ...

    assert (await queue.get_workers_count(), await queue.get_queue_events()) == (0, [])
    async with (
        QueueEvents("tests", connection=server_url, prefix=queue.prefix) as events,
        QueueEvents("others", connection=server_url, prefix=queue.prefix),
        Worker(queue, process, name="w-1"),
    ):
        await events.read(1)
        await until("the worker's connection", queue.get_workers_count)
        assert len(await queue.get_queue_events()) == 1


async def test_metrics_for_prometheus(queue: Queue) -> None:
    """Ended jobs are counted by workers that collect metrics; labels are quoted, and checked."""

    async def process(job: Job) -> None:
        if job.name == "bad":
            raise ValueError

    async with Worker(queue, process, metrics_points=10):
        for name in ("good", "good", "bad"):
            job = await queue.add(name)
            with within_failing(name == "bad"):
                await job.result(timeout=20)
    text = await queue.export_prometheus_metrics({"environment": 'a"b\\c\nd'})

    label = 'environment="a\\"b\\\\c\\nd"'
    assert f'bullmq_job_count{{queue="tests", state="completed", {label}}} 2' in text
    assert f'bullmq_job_completed_total{{queue="tests", {label}}} 2' in text
    assert f'bullmq_job_failed_total{{queue="tests", {label}}} 1' in text
    metrics = await queue.get_metrics("completed")
    assert (metrics.count, metrics.points, len(metrics.data)) == (2, len(metrics.data), metrics.points)
    for name in ("state", "1st", "a-b", "", "__name__"):
        with pytest.raises(ConfigurationError, match="label"):
            await queue.export_prometheus_metrics({name: "x"})


def within_failing(fails: bool) -> Any:
    from contextlib import nullcontext

    from toril import JobFailedError

    return pytest.raises(JobFailedError) if fails else nullcontext()


async def test_progress_and_logs_by_id(queue: Queue) -> None:
    """Without reading the job; what is not there is said to be."""
    job = await queue.add("a")
    await queue.update_job_progress(job.id, {"at": 5})
    assert [await queue.add_job_log(job.id, f"row {n}", keep_logs=2) for n in range(3)] == [1, 2, 2]

    await job.refresh()
    assert job.progress == {"at": 5}
    assert (await queue.get_job_logs(job.id)).logs == ["row 1", "row 2"]
    with pytest.raises(JobNotFoundError, match="missing"):
        await queue.update_job_progress("missing", 1)
    with pytest.raises(JobNotFoundError, match="missing"):
        await queue.add_job_log("missing", "row")
    for impossible in (-1, "2", 1.5):
        with pytest.raises(ConfigurationError, match="keep_logs must be"):
            await queue.add_job_log(job.id, "row", impossible)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def test_what_cannot_be_asked_is_refused(queue: Queue) -> None:
    """In plain words, rather than with an answer about nothing."""
    asked: list[tuple[Any, str]] = [
        (queue.get_metrics("waiting"), "must be one of 'completed', 'failed', got 'waiting'"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (queue.get_dependencies("1", "failed"), "must be one of 'processed', 'pending', got 'failed'"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (queue.get_delayed_count(5), "before must be a datetime of our times, got 5"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (queue.retry_jobs(before="soon"), "before must be a datetime of our times, got 'soon'"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (queue.remove_orphaned_jobs(0), "count must be a whole number, at least 1"),
    ]
    for call, says in asked:
        with pytest.raises(ConfigurationError, match=says):
            await call


async def test_retrying_what_failed_before_a_time(queue: Queue, client: Client) -> None:
    """Later failures stay where they are."""
    for number in (1, 2):
        job = await queue.add("a", job_id=f"job-{number}")
        await client.lrem(queue.keys.key("wait"), 1, job.id)
        await client.zadd(queue.keys.key("failed"), {job.id: 1_700_000_000_000 + number * 1000})

    limit = datetime.fromtimestamp(1_700_000_001.5, UTC)
    assert await queue.retry_jobs(before=limit) == 1
    assert await queue.get_ids("waiting") == ["job-1"]
    assert await queue.get_ids("failed") == ["job-2"]


async def test_obliterating_in_small_steps(queue: Queue, client: Client) -> None:
    """The size of a step changes nothing but the number of steps."""
    await queue.add_bulk([("a", n) for n in range(25)])
    with pytest.raises(ConfigurationError, match="count"):
        await queue.obliterate(count=0)
    await queue.obliterate(count=10)
    assert [key async for key in client.scan_iter(f"{queue.keys.base}*") if ":toril" not in key] == []


async def test_a_deprecated_key_goes(queue: Queue, client: Client) -> None:
    """The helper of old versions, if there is one."""
    await client.zadd(queue.keys.key("priority"), {"1": 1})
    assert await queue.remove_deprecated_priority_key()
    assert not await queue.remove_deprecated_priority_key()


async def test_a_job_as_one_record(queue: Queue, server_url: str) -> None:
    """Everything that is known of a job, under BullMQ's names, and fit for JSON."""
    parent = await queue.add("parent", delay=60)
    job = await queue.add("a", {"n": 1}, attempts=3, backoff=5, keep_logs=7, parent=parent)
    shown = job.to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["opts"]["backoff"] == {"type": "fixed", "delay": 5000}
    assert (shown["opts"]["keepLogs"], shown["opts"]["attempts"]) == (7, 3)
    assert shown["parent"] == {"id": parent.id, "queueKey": queue.qualified_name}
    assert job.parent is not None
    assert (job.parent.id, job.parent.queue) == (parent.id, queue.qualified_name)
    assert "failedReason" not in shown
    assert job.deduplication_id is None
    owner = await queue.add("b", deduplication=Deduplication("d"))
    found = await Job.from_id(queue, owner.id)
    assert found is not None
    assert found.deduplication_id == found.to_json()["deduplicationId"] == "d"

    again = await Job.from_id(queue, job.id)
    assert again is not None
    assert again.to_json() == shown
    assert await Job.from_id(queue, "missing") is None


async def test_waiting_for_the_server(server: EmbeddedServer, queue: Queue) -> None:
    """A server that answers is ready; one that does not is said to be missing, after the time that was given."""
    from tests.test_queue import unused_port

    await queue.wait_until_ready(timeout=5)
    async with Queue("q", connection=f"redis://127.0.0.1:{unused_port()}") as nowhere:
        with pytest.raises(ServerUnreachableError, match="cannot reach"):
            await nowhere.wait_until_ready(timeout=0.2)


async def test_a_full_server_is_still_looked_at(server: EmbeddedServer) -> None:
    """Counts, logs, children and metrics are read although nothing can be written any more."""
    with like(server, maxmemory="4mb", maxmemory_policy="noeviction") as own:
        async with Queue("q", connection=own.url) as queue:
            job = await queue.add("a")
            with pytest.raises(ServerRefusedError, match="memory"):
                await asyncio.gather(*(queue.add("a", "x" * 100_000) for _ in range(60)))

            assert await queue.get_waiting_count() >= 1
            assert (await queue.get_job_logs(job.id)).count == 0
            assert (await job.get_dependencies()).unprocessed == []
            assert (await job.get_dependencies_count()).processed == 0
            assert (await queue.get_metrics("completed")).count == 0
            assert "bullmq_job_count" in await queue.export_prometheus_metrics()


async def test_an_id_that_is_no_text_is_refused(queue: Queue) -> None:
    """Whoever kept it as a number is told so, rather than about the concatenation of str and int."""
    with pytest.raises(ConfigurationError, match="a job's id is text, not int"):
        await queue.get_job(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
