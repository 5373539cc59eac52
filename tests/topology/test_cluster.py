"""Cluster: every verb on queues whose keys share a slot, a node that dies, and a slot that moves."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest
from redis.crc import key_slot

from tests.patience import ended, until
from tests.topology.nodes import Node, cluster
from tests.topology.test_sentinel import added
from toril import (
    ConfigurationError,
    Connection,
    Deduplication,
    FlowJob,
    FlowProducer,
    JobFailedError,
    Queue,
    QueueEvents,
    ServerUnreachableError,
    Worker,
    find_queues,
)
from toril._cluster import slot_of


async def test_every_verb_works_on_a_cluster() -> None:
    """Adding of all kinds, flows over two queues, schedulers, events, results, looking, changing, removing."""
    async with cluster() as nodes:
        connection = Connection(f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes[1].port}")
        async with connection:
            queue = Queue("q", connection=connection, prefix="{bull}")
            other = Queue("other", connection=connection, prefix="{bull}")
            producer = FlowProducer(connection=connection, prefix="{bull}")
            async with Worker(queue, _process, name="w"), Worker(other, _process):
                heard: list[str] = []
                async with QueueEvents("q", connection=connection, prefix="{bull}") as events:
                    jobs = [
                        await queue.add("a", 1),
                        await queue.add("a", 2, delay=0.05),
                        await queue.add("a", 3, priority=5),
                        await queue.add("a", 4, deduplication=Deduplication("d"), lifo=True),
                        *await queue.add_bulk([("a", number) for number in range(5, 50)]),
                    ]
                    assert await ended(*jobs) == list(range(1, 50))
                    async for event in events:
                        heard.append(event.name)
                        if heard.count("completed") == 49:
                            break
                children = [FlowJob("a", "other", number) for number in range(3)]
                flow = await producer.add(FlowJob("sum", "q", children=children))
                assert await flow.job.result(15) == 3
                failed = await queue.add("fail", attempts=2, backoff=0.01)
                with pytest.raises(JobFailedError):
                    await failed.result(15)
                await failed.retry()
                await queue.upsert_job_scheduler("tick", every=3600)
                assert [one.id for one in await queue.get_job_schedulers()] == ["tick"]
                await until("two workers", lambda: _count(queue))
            await _look_and_remove(queue)
            assert await find_queues(connection, "{bull}") == ["other"]
            # All that there is, is where the tag says.
            slot = key_slot(b"{bull}")
            owner = _owner_of(nodes, slot)
            for node in nodes:
                assert (await node.ask("DBSIZE") > 0) == (node is owner)

            with pytest.raises(ConfigurationError, match="put a hash tag into the prefix"):
                await Queue("untagged", connection=connection).add("a")
            elsewhere = FlowJob("a", "x", prefix="{elsewhere}")
            with pytest.raises(ConfigurationError, match="the same for all queues of a flow"):
                await producer.add(FlowJob("root", "q", children=[elsewhere]))


async def _process(job: Any) -> Any:
    if job.name == "fail":
        raise ValueError
    if job.name == "sum":
        return sum((await job.get_children_values()).values())
    await job.update_progress(50)
    await job.log("half")
    return job.data


async def _count(queue: Queue) -> bool:
    return len(await queue.get_workers()) == 1


async def _look_and_remove(queue: Queue) -> None:
    job = await queue.add("late", delay=60)
    await job.change_delay(50)
    await job.change_priority(3)
    await job.update_data({"new": True})
    await job.promote()
    assert await job.get_state() == "prioritized"
    assert await job.remove()
    await queue.pause()
    assert await queue.is_paused()
    assert (await queue.get_job_counts("completed"))["completed"] > 40
    assert len(await queue.get_jobs("completed", 0, 4)) == 5
    assert len(await queue.clean(0, 10)) == 10
    await queue.drain(delayed=True)
    assert await queue.remove_orphaned_jobs() == 0
    await queue.obliterate(force=True)


async def test_a_primary_dies_and_its_replica_takes_over() -> None:
    """The same producer and worker go on at the new one."""
    async with cluster(replicas=1) as nodes:
        tag = next(f"{{t{n}}}" for n in range(100) if key_slot(f"{{t{n}}}".encode()) < 5461)
        url = f"redis+cluster://127.0.0.1:{nodes[1].port},127.0.0.1:{nodes[2].port}"
        async with Queue("q", connection=url, prefix=tag) as queue, Worker(queue, _process):
            assert await (await queue.add("a", 1)).result(10) == 1
            nodes[0].kill()
            job = await added(queue, "after")
            assert await job.result(15) == "after"


async def test_no_call_waits_for_all_nodes_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many are silent, a call asks as many as it has time for, and the next call asks the others."""
    monkeypatch.setattr("toril.connection._CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr("toril._cluster._PATIENCE", 0.3)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        hosts = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in silent)
        async with Connection(f"redis+cluster://:password@{hosts}") as connection:
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(ServerUnreachableError):
                    await connection.execute("PING")
                assert time.monotonic() - began < 1
        for one in silent:
            one.settimeout(1)
            stack.enter_context(one.accept()[0])


async def test_a_slot_moves_while_jobs_run() -> None:
    """Atomically, as Valkey 9 does it: every job runs, and no caller hears of it."""
    async with cluster() as nodes:
        url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
        slot = key_slot(b"{bull}")
        source = _owner_of(nodes, slot)
        target = next(node for node in nodes if node is not source)
        async with (
            Queue("q", connection=url, prefix="{bull}") as queue,
            Worker(queue, _process, concurrency=5),
        ):
            jobs = [await queue.add("a", number) for number in range(20)]
            adding = asyncio.create_task(_keep_adding(queue, 60))
            await _move(slot, source, target)
            jobs += await adding
            assert await ended(*jobs) == [*range(20), *range(60)]
        assert await target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) > 80


async def _keep_adding(queue: Queue, count: int) -> list[Any]:
    jobs: list[Any] = []
    for number in range(count):
        jobs.append(await queue.add("a", number))
        await asyncio.sleep(0.01)
    return jobs


async def _move(slot: int, source: Node, target: Node) -> None:
    """As Valkey 9 does it: all keys at one moment."""
    target_id = await target.ask("CLUSTER", "MYID")
    await source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target_id)
    await until("the slot's arrival", lambda: _has_keys(target, slot))


async def _has_keys(target: Node, slot: int) -> bool:
    return bool(await target.ask("CLUSTER", "COUNTKEYSINSLOT", slot))


def _owner_of(nodes: list[Node], slot: int) -> Node:
    return nodes[next(number for number, last in enumerate((5460, 10922, 16383)) if slot <= last)]


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "{a}x"), "{a}x"),
        (("EVALSHA", "sha", 2, "{a}1", "{a}2", "{b}"), "{a}1"),
        (("XREAD", "BLOCK", 5, "STREAMS", "{a}s", "$"), "{a}s"),
        (("SCAN", 0, "MATCH", "{a}:q:*"), "{a}"),
        (("DEL", "{a}1", "{a}2"), "{a}1"),
        (("BZPOPMIN", "{a}m", 5), "{a}m"),
        (("SCAN", 0, "MATCH", "*"), None),
        (("PING",), None),
        (("EVAL", "return 1", 0), None),
    ],
)
def test_where_a_commands_keys_are(command: tuple[Any, ...], key: str | None) -> None:
    """Keys decide which node is asked; where there are none, any is."""
    assert slot_of([command]) == (None if key is None else key_slot(key.encode()))
