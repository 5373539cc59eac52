"""A server that has no memory left refuses a flow in toril's words."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from tests.patience import like
from toril import FlowJob, FlowProducer, Queue, ServerRefusedError
from toril.embedded import EmbeddedServer


async def test_a_flow_for_which_there_is_no_memory_is_refused(server: EmbeddedServer) -> None:
    """The refusal comes from inside a transaction, names the cause, and leaves nothing; later it is added."""
    with like(server) as own:
        flow = FlowJob("parent", "q", children=[FlowJob("child", "q")])
        async with (
            redis.asyncio.Redis.from_url(own.url) as client,
            FlowProducer(connection=own.url) as flows,
            Queue("q", connection=own.url) as queue,
        ):
            await flows.add(flow)
            await queue.obliterate(force=True)
            await client.config_set("maxmemory", "1mb")
            with pytest.raises(ServerRefusedError, match="memory"):
                await flows.add(flow)
            assert [key async for key in client.scan_iter(match="bull:*")] == []
            await client.config_set("maxmemory", "0")
            await flows.add(flow)
            assert await queue.get_job_counts("waiting", "waiting-children") == {
                "waiting": 1,
                "waiting-children": 1,
            }


async def test_a_flow_outlives_forgotten_scripts(queue: Queue, client: redis.asyncio.Redis) -> None:
    """A server that forgets its scripts between their loading and their use is asked again."""
    is_over = asyncio.Event()

    async def forget() -> None:
        while not is_over.is_set():
            await client.script_flush()

    forgetting = asyncio.create_task(forget())
    try:
        flows = FlowProducer(connection=queue.connection, prefix=queue.prefix)
        for number in range(100):
            children = [FlowJob("child", queue.name, options={"job_id": f"c-{number}"})]
            parent = FlowJob("parent", queue.name, options={"job_id": f"p-{number}"}, children=children)
            await flows.add(parent)
        counts = await queue.get_job_counts("waiting", "waiting-children")
    finally:
        is_over.set()
        await forgetting
    assert counts["waiting"] == counts["waiting-children"] == 100
