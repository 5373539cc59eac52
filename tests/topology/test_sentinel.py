"""Sentinel: the primary dies, or hands over as planned; producers and workers find the new one by themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.patience import until, within
from tests.topology.nodes import Node, sentinel
from toril import (
    ConfigurationError,
    Connection,
    ConnectionLostError,
    Job,
    Queue,
    QueueEvents,
    TorilError,
    Worker,
)


async def test_a_fail_over_by_death_and_one_by_plan() -> None:
    """What was added after either is done by the same worker, and its events are heard by the same listener."""
    ran: list[Any] = []

    async def process(job: Any) -> None:
        ran.append(job.data)

    async with sentinel() as (primary, replica, watcher):
        # A Sentinel that does not answer is passed over.
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watcher.port}/mymaster/0"
        queue = Queue("q", connection=url)
        async with queue, Worker(queue, process), QueueEvents("q", connection=url) as events:
            heard: set[str | None] = set()
            listening = asyncio.create_task(_listen(events, heard))
            await (await queue.add("a", "before")).result(10)

            primary.kill()
            job = await added(queue, "after a death")
            await job.result(10)
            assert (await replica.ask("ROLE"))[0] == "master"

            await primary.start()
            await until("the old primary to follow the new one", lambda: _follows(primary))
            await until("the Sentinel to see it", lambda: _knows_replica(watcher))
            await watcher.ask("SENTINEL", "FAILOVER", "mymaster")
            await until("the hand-over", lambda: _leads(primary))
            job = await added(queue, "after a plan")
            await job.result(10)

            await until("the event of the last job", lambda: job.id in heard)
            listening.cancel()
    # Each of them ran; the later fail-over lost none of those that were known to both servers.
    assert {"before", "after a death", "after a plan"} <= set(ran)


async def test_a_primary_that_is_silent_is_left_when_another_rules() -> None:
    """A call that waits for it is told at once; who asks where the primary is leaves no connection to the Sentinel."""
    async with sentinel() as (primary, _, watcher):
        before = await _connections(watcher)
        async with Connection(f"redis+sentinel://127.0.0.1:{watcher.port}/mymaster/0") as connection:
            lanes = [connection.lane() for _ in range(9)]
            await asyncio.gather(*(lane.execute("PING") for lane in lanes))
            assert await _connections(watcher) <= before + 1
            calls = [
                asyncio.create_task(lane.execute("BLPOP", "nothing", 0, timeout=600)) for lane in lanes[:4]
            ]
            primary.freeze()
            try:

                def look() -> bool:
                    # As the thread that renews locks does as long as it meets faults.
                    connection.suspect()
                    return all(call.done() for call in calls)

                await until("the end of the calls", look)
                found = await asyncio.gather(*calls, return_exceptions=True)
                assert [type(error) for error in found] == [ConnectionLostError] * 4
                assert (await lanes[0].execute("ROLE"))[0] == "master"
            finally:
                primary.kill()
            for lane in lanes:
                await lane.close()
        await until("the end of all questions", lambda: _has_at_most(watcher, before))


async def test_an_old_primary_that_answers_on_is_left() -> None:
    """It has not heard yet that another rules, so nothing fails; who has nothing to do would stay with it."""
    async with sentinel() as (_, replica, watcher):
        url = f"redis+sentinel://127.0.0.1:{watcher.port}/mymaster/0"
        drained = asyncio.Event()
        worker = Worker("q", lambda job: job.data, connection=url, drain_delay=600)
        worker.on("drained", drained.set)
        async with worker:
            async with Queue("q", connection=url) as queue:
                await (await queue.add("a", "before")).result(10)
                await drained.wait()
            await watcher.ask("SENTINEL", "REMOVE", "mymaster")
            await replica.ask("REPLICAOF", "NO", "ONE")
            await watcher.ask("SENTINEL", "MONITOR", "mymaster", "127.0.0.1", str(replica.port), "1")
            async with Queue("q", connection=f"redis://127.0.0.1:{replica.port}") as queue:
                assert await (await queue.add("a", "after")).result(5) == "after"


async def _connections(watcher: Node) -> int:
    """How many clients a Sentinel has, apart from other servers."""
    listed: Any = await watcher.client.execute_command("CLIENT", "LIST", "TYPE", "normal")
    return len(str(listed).strip().splitlines()) if isinstance(listed, str) else len(listed)


async def _has_at_most(watcher: Node, count: int) -> bool:
    return await _connections(watcher) <= count


async def _listen(events: QueueEvents, heard: set[str | None]) -> None:
    async for event in events:
        if event.name == "completed":
            heard.add(event.job_id)


async def added(queue: Queue, data: Any) -> Job[Any]:
    """Add it as a program would that does not give up: under an id, until it works."""
    async with within(f"a server that takes {data!r}"):
        while True:
            try:
                return await queue.add("a", data, job_id=f"job-{data}")
            except TorilError:
                await asyncio.sleep(0.05)


async def _follows(node: Node) -> bool:
    role = await node.ask("ROLE")
    return bool(role[0] == "slave" and role[3] == "connected")


async def _leads(node: Node) -> bool:
    return bool((await node.ask("ROLE"))[0] == "master")


async def _knows_replica(watcher: Node) -> bool:
    replicas = await watcher.ask("SENTINEL", "REPLICAS", "mymaster")
    return any(
        "slave" in str(row) and "disconnected" not in str(row) and "s_down" not in str(row)
        for row in replicas
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://host:26379", "the name of the service"),
        ("redis+sentinel://host/mymaster/x", "the name of the service"),
        ("redis+sentinel:///mymaster", "it names no host"),
        ("redis+cluster://", "it names no host"),
        ("redis+cluster://host/3", "no databases but 0"),
        ("redis+cluster://host:port", "no host:port"),
        ("rediss://host?ssl_cert_reqs=none", "TLS protects from nobody"),
        ("rediss://host?ssl_check_hostname=false", "TLS protects from nobody"),
        ("rediss+cluster://a,b?ssl_cert_reqs=optional", "TLS protects from nobody"),
    ],
)
def test_urls_that_cannot_be_say_why(url: str, says: str) -> None:
    """Before anything is sent, and without the password."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        Connection(url.replace("://", "://me:secret@", 1) if "///" not in url else url)
    assert "secret" not in str(caught.value)


def test_tls_without_verification_has_to_be_said() -> None:
    """For a test system, by a word that nobody writes by mistake."""
    Connection("rediss://host?ssl_cert_reqs=none&tls_insecure=yes")
    Connection("rediss+cluster://host?ssl_cert_reqs=none&tls_insecure=yes")
