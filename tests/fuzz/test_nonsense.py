"""Answers that no server gives, to every command of every verb: a type for the caller, and no loss for the worker.

What stands between a program and its server may answer anything. Each verb is played once, to count its commands; then
once for each of them and each answer, which that command gets in the server's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fuzz.proxy import open_door
from tests.fuzz.test_replies import NONSENSE, PREFIX, SITES
from tests.patience import within
from toril import (
    ConnectionLostError,
    FlowJob,
    FlowProducer,
    Job,
    Queue,
    QueueEvents,
    QueueEventsProducer,
    TorilError,
    Worker,
    find_queues,
)
from toril.embedded import EmbeddedServer

ANSWERS = [
    *NONSENSE,
    b"*1\r\n$-1\r\n",
    b"*2\r\n*0\r\n:1\r\n",
    b"*1\r\n$1\r\na\r\n",
    b":-99\r\n",
    b"$0\r\n\r\n",
]
# What opens a connection is redis-py's.
HANDSHAKE = (b"HELLO", b"AUTH", b"SELECT", b"SETINFO", b"SETNAME")


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


class Nth:
    """Picks one command of those that come from now on, or counts them all."""

    def __init__(self, wanted: int = -1) -> None:
        self.seen = 0
        self._wanted = wanted

    def __call__(self, args: list[bytes]) -> bool:
        if any(word.upper() in HANDSHAKE for word in args[:2]):
            return False
        self.seen += 1
        return self.seen - 1 == self._wanted


async def nothing(queue: Queue) -> Any:
    return None


def added(**options: Any) -> Callable[[Queue], Awaitable[Any]]:
    return lambda queue: queue.add("a", 1, **options)


async def family(queue: Queue) -> Job[Any]:
    flow = FlowJob("a", queue.name, children=[FlowJob("b", queue.name)])
    producer = FlowProducer(connection=queue.connection, prefix=queue.prefix)
    return (await producer.add(flow)).job


async def child(queue: Queue) -> Job[Any]:
    parent = await family(queue)
    (key,) = (await parent.get_dependencies()).unprocessed
    return await queue.get_job_or_raise(key.rpartition(":")[2])


async def active(queue: Queue) -> Job[Any]:
    await queue.obliterate(force=True)
    await queue.resume()
    await queue.add("a", 1)
    job = await Worker(queue).get_next_job()
    assert job is not None
    return job


async def failed(queue: Queue) -> Job[Any]:
    job = await active(queue)
    await job.move_to_failed("why")
    return job


async def scheduled(queue: Queue) -> Any:
    return await queue.upsert_job_scheduler("s", every=60)


async def add_flow(queue: Queue, _: Any) -> Any:
    return await family(queue)


async def get_flow(queue: Queue, job: Job[Any]) -> Any:
    return await FlowProducer(connection=queue.connection, prefix=queue.prefix).get_flow(queue.name, job.id)


async def publish(queue: Queue, _: Any) -> Any:
    producer = QueueEventsProducer(queue.name, connection=queue.connection, prefix=queue.prefix)
    return await producer.publish_event("mine")


async def listen(queue: Queue, _: Any) -> Any:
    async with QueueEvents(queue.name, connection=queue.connection, prefix=queue.prefix) as events:
        await queue.add("a")
        return await events.read(100)


Act = Callable[[Any, Any], Awaitable[Any]]
Prepare = Callable[[Queue], Awaitable[Any]]
VERBS: dict[str, tuple[Prepare, Act]] = {
    "add": (nothing, lambda queue, _: queue.add("a")),
    "add durably": (nothing, lambda queue, _: queue.add("a", durability="fsynced")),
    "flow": (nothing, add_flow),
    "get_flow": (family, get_flow),
    "publish_event": (nothing, publish),
    "events": (nothing, listen),
    "find_queues": (nothing, lambda queue, _: find_queues(queue.connection, queue.prefix)),
    # Of a queue
    "get_job": (added(), lambda queue, job: queue.get_job(job.id)),
    "get_job_counts": (nothing, lambda queue, _: queue.get_job_counts()),
    "get_delayed_count": (nothing, lambda queue, _: queue.get_delayed_count(datetime.now(UTC))),
    "get_ids": (added(), lambda queue, _: queue.get_ids("waiting", ascending=True)),
    "get_jobs": (added(delay=60), lambda queue, _: queue.get_jobs(("delayed", "waiting"))),
    "get_dependencies": (family, lambda queue, job: queue.get_dependencies(job.id, "pending")),
    "get_job_logs": (added(), lambda queue, job: queue.get_job_logs(job.id)),
    "get_workers": (nothing, lambda queue, _: queue.get_workers()),
    "get_queue_events": (nothing, lambda queue, _: queue.get_queue_events()),
    "get_counts_per_priority": (nothing, lambda queue, _: queue.get_counts_per_priority([0, 1])),
    "get_version": (nothing, lambda queue, _: queue.get_version()),
    "get_metrics": (nothing, lambda queue, _: queue.get_metrics("completed")),
    "export_prometheus_metrics": (nothing, lambda queue, _: queue.export_prometheus_metrics()),
    "is_paused": (nothing, lambda queue, _: queue.is_paused()),
    "pause": (nothing, lambda queue, _: queue.pause()),
    "resume": (nothing, lambda queue, _: queue.resume()),
    "wait_until_ready": (nothing, lambda queue, _: queue.wait_until_ready(1)),
    "set_global_concurrency": (nothing, lambda queue, _: queue.set_global_concurrency(5)),
    "is_maxed": (lambda queue: queue.set_global_concurrency(5), lambda queue, _: queue.is_maxed()),
    "set_global_rate_limit": (nothing, lambda queue, _: queue.set_global_rate_limit(500, 1)),
    "get_global_rate_limit": (nothing, lambda queue, _: queue.get_global_rate_limit()),
    "rate_limit": (nothing, lambda queue, _: queue.rate_limit(0.001)),
    "get_rate_limit_ttl": (nothing, lambda queue, _: queue.get_rate_limit_ttl()),
    "remove": (added(), lambda queue, job: queue.remove(job.id)),
    "drain": (added(), lambda queue, _: queue.drain(delayed=True)),
    "clean": (failed, lambda queue, _: queue.clean(0, state="failed")),
    "obliterate": (nothing, lambda queue, _: queue.obliterate(force=True)),
    "retry_jobs": (failed, lambda queue, _: queue.retry_jobs()),
    "promote_jobs": (added(delay=60), lambda queue, _: queue.promote_jobs()),
    "remove_orphaned_jobs": (added(), lambda queue, _: queue.remove_orphaned_jobs()),
    "trim_events": (nothing, lambda queue, _: queue.trim_events(5)),
    "get_deduplication_job_id": (nothing, lambda queue, _: queue.get_deduplication_job_id("d")),
    "remove_deduplication_key": (nothing, lambda queue, _: queue.remove_deduplication_key("d")),
    "upsert_job_scheduler": (nothing, lambda queue, _: queue.upsert_job_scheduler("s", every=60)),
    "upsert a pattern": (nothing, lambda queue, _: queue.upsert_job_scheduler("p", pattern="* * * * *")),
    "get_job_scheduler": (scheduled, lambda queue, _: queue.get_job_scheduler("s")),
    "get_job_schedulers": (scheduled, lambda queue, _: queue.get_job_schedulers()),
    "get_job_schedulers_count": (nothing, lambda queue, _: queue.get_job_schedulers_count()),
    "remove_job_scheduler": (scheduled, lambda queue, _: queue.remove_job_scheduler("s")),
    # Of a job
    "get_state": (added(), lambda _, job: job.get_state()),
    "refresh": (added(), lambda _, job: job.refresh()),
    "log": (added(), lambda _, job: job.log("row")),
    "clear_logs": (added(), lambda _, job: job.clear_logs(5)),
    "promote": (added(delay=60), lambda _, job: job.promote()),
    "change_delay": (added(delay=60), lambda _, job: job.change_delay(70)),
    "change_priority": (added(), lambda _, job: job.change_priority(5)),
    "remove a job": (added(), lambda _, job: job.remove()),
    "retry": (failed, lambda _, job: job.retry()),
    "get_children_values": (family, lambda _, job: job.get_children_values()),
    "get_failed_children": (family, lambda _, job: job.get_failed_children()),
    "dependencies of a job": (family, lambda _, job: job.get_dependencies()),
    "page of processed": (family, lambda _, job: job.get_dependencies_page("processed")),
    "page of unprocessed": (family, lambda _, job: job.get_dependencies_page("unprocessed")),
    "page of failed": (family, lambda _, job: job.get_dependencies_page("failed")),
    "get_dependencies_count": (family, lambda _, job: job.get_dependencies_count()),
    "remove_unprocessed_children": (family, lambda _, job: job.remove_unprocessed_children()),
    "remove_child_dependency": (child, lambda _, job: job.remove_child_dependency()),
    # Of a job in hand
    "get_next_job": (active, lambda queue, _: Worker(queue).get_next_job()),
    "update_progress": (active, lambda _, job: job.update_progress(5)),
    "update_data": (active, lambda _, job: job.update_data(5)),
    "extend_lock": (active, lambda _, job: job.extend_lock(60)),
    "move_to_completed": (active, lambda _, job: job.move_to_completed(5)),
    "move_to_failed": (active, lambda _, job: job.move_to_failed("why")),
    "move_to_delayed": (active, lambda _, job: job.move_to_delayed(60)),
    "move_to_wait": (active, lambda _, job: job.move_to_wait()),
    "move_to_waiting_children": (active, lambda _, job: job.move_to_waiting_children()),
}  # fmt: skip


@pytest.fixture(scope="module")
def durable_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(persistence="aof", config={"appendfsync": "always"}) as server:
        yield server


@pytest.mark.parametrize("verb", VERBS)
async def test_an_answer_that_says_nothing_has_a_type(request: pytest.FixtureRequest, verb: str) -> None:
    """Whatever the answer to whichever command: an error of toril's or a result, soon; and the next call works."""
    prepare, act = VERBS[verb]
    server: EmbeddedServer = request.getfixturevalue("durable_server" if "durably" in verb else "own_server")
    async with open_door(server.port) as door:
        url = f"redis://127.0.0.1:{door.port}"
        async with Queue(f"nonsense-{verb.replace(' ', '-')}", connection=url, prefix=PREFIX) as queue:
            await queue.add("a")
            counting = Nth()
            subject = await prepare(queue)
            door.answer(counting, b"", 1)
            await act(queue, subject)
            assert counting.seen > 0
            for number in range(counting.seen):
                for answer in ANSWERS:
                    door.answer(Nth(), b"", 0)
                    subject = await prepare(queue)
                    door.answer(Nth(number), answer, 1)
                    async with within(f"{verb} after {answer!r} to its command {number}"):
                        with suppress(TorilError):
                            await act(queue, subject)
                    door.answer(Nth(), b"", 0)
                    await act(queue, await prepare(queue))


async def test_the_error_says_what_was_asked_and_where(own_server: EmbeddedServer) -> None:
    """It names the queue and the job, hints at what stands in between, and quotes nothing of the answer."""
    async with (
        open_door(own_server.port) as door,
        Queue("asked", connection=f"redis://127.0.0.1:{door.port}", prefix=PREFIX) as queue,
    ):
        job = await queue.add("a", delay=60)
        calls: list[tuple[Callable[[], Awaitable[Any]], str]] = [
            (lambda: queue.add("a"), "queue 'asked': adding"),
            (job.promote, f"queue 'asked': promote of job '{job.id}'"),
            (queue.get_job_counts, "queue 'asked': get_counts"),
            (job.refresh, f"HGETALL replies:asked:{job.id}"),
            (queue.get_waiting, "LRANGE replies:asked:wait"),
        ]
        for act, says in calls:
            door.answer(Nth(0), b"$7\r\nhunter2\r\n", 1)
            with pytest.raises(ConnectionLostError) as caught:
                await act()
            assert str(caught.value).startswith(f"{says}: the answer is none that a server gives (")
            assert "is something between it and this program?" in str(caught.value)
            assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_time_that_is_none(own_server: EmbeddedServer, answer: bytes) -> None:
    """The question for the time, which comes before all others, is asked again by the next call."""
    async with (
        open_door(own_server.port) as door,
        Queue("time", connection=f"redis://127.0.0.1:{door.port}", prefix=PREFIX) as queue,
    ):
        door.answer(lambda args: args[0].upper() == b"TIME", answer, 1)
        with pytest.raises(ConnectionLostError):
            await queue.add("a")
        await queue.add("a")


@pytest.mark.parametrize("answer", [*ANSWERS, b"*1\r\n*3\r\n:0\r\n:16383\r\n$1\r\na\r\n"])
async def test_a_map_of_a_cluster_that_is_none(own_server: EmbeddedServer, answer: bytes) -> None:
    """Who asks a cluster hears so, too."""
    async with open_door(own_server.port) as door:
        url = f"redis+cluster://127.0.0.1:{door.port}"
        async with Queue("cluster", connection=url, prefix="{replies}") as queue:
            door.answer(lambda args: args[0].upper() == b"CLUSTER", answer, 20)
            async with within("an error"):
                with pytest.raises(TorilError):
                    await queue.add("a")
            assert door.refused > 0


async def test_who_awaits_a_result_waits_on(own_server: EmbeddedServer) -> None:
    """An answer that says nothing of a job's end is no end; what is said next is heard."""
    async with open_door(own_server.port) as door:
        url = f"redis://127.0.0.1:{door.port}"
        async with Queue("result", connection=url, prefix=PREFIX) as queue:
            job = await active(queue)
            await job.move_to_completed(5)
            counting = Nth()
            door.answer(counting, b"", 1)
            assert await job.result() == 5
            for number in range(counting.seen):
                for answer in ANSWERS:
                    door.answer(Nth(number), answer, 1)
                    async with within(f"an end after {answer!r} to command {number}"):
                        with suppress(TorilError, TimeoutError):
                            assert await job.result(timeout=0.1) == 5
                    door.answer(Nth(), b"", 0)
                    async with within("the result"):
                        assert await job.result() == 5


@pytest.mark.parametrize("site", SITES)
async def test_a_worker_goes_on(own_server: EmbeddedServer, site: str) -> None:
    """After each of these answers, met once or twice in a row: every job runs to its end."""

    async def process(job: Job[Any]) -> int:
        if site == "locks":
            await asyncio.sleep(0.3)
        if job.data and not job.attempts_made:
            raise ValueError("the first time")
        return 1

    async with open_door(own_server.port) as door:
        url = f"redis://127.0.0.1:{door.port}"
        async with Queue(f"nonsense-{site}", connection=url, prefix=PREFIX) as queue:
            options: dict[str, Any] = {
                "stalled_interval": 0.05,
                "lock_duration": 0.4 if site == "locks" else 1,
            }
            async with Worker(queue, process, concurrency=3, **options):
                # Idle workers are patient: each answer costs seconds.
                for answer in ANSWERS[::4] if site == "wait" else ANSWERS:
                    # A number is a lie that a script could tell: the job stalls, and may do so once.
                    door.answer(SITES[site], answer, 1 if answer.startswith(b":") else 2)
                    async with within(f"the jobs after {answer!r} at {site}"):
                        plain = await queue.add("a")
                        at_once = await queue.add("a", 1, attempts=2)
                        later = await queue.add("a", 1, attempts=2, backoff=0.01)
                        assert [await one.result() for one in (plain, at_once, later)] == [1, 1, 1]
