"""No fault, but much at once. What is measured is how long the server is kept from everybody else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import redis.asyncio

from chaos.stage import QUEUE, Plan, Stage, script_names
from toril import FlowJob, FlowProducer, NewJob, Queue

from ._registry import cell

# The load is the cell's own. Locks are long, since nothing dies here.
QUIET = Plan(rate=20, worker={"lock_duration": 30, "stalled_interval": 10}, settle=120)


LONGEST_MS = 20
"""That a command may keep everybody else from the server."""


async def watch_commands(client: redis.asyncio.Redis) -> None:
    """From now on the server notes what takes longer than half a millisecond."""
    await client.config_set("slowlog-log-slower-than", "500")
    await client.config_set("slowlog-max-len", "20000")
    await client.slowlog_reset()


async def longest(stage: Stage) -> float:
    """Note the longest command of the server, and which it is; return it in milliseconds."""
    async with stage.look() as client:
        slow: list[dict[str, Any]] = await client.slowlog_get(20_000)
    slowest: dict[str, Any] = max(
        slow, key=lambda row: row["duration"], default={"duration": 0, "command": ""}
    )
    took: float = round(slowest["duration"] / 1000, 1)
    stage.facts["longest_command_ms"] = took
    command: str | bytes = slowest["command"]
    words = (command.decode(errors="replace") if isinstance(command, bytes) else str(command)).split()
    stage.facts["longest_command"] = (
        script_names().get(words[1], words[1]) if words[:1] == ["EVALSHA"] else " ".join(words[:1])
    )
    return took


@cell("37", "50,000 delayed jobs due at one moment", QUIET, clients=("toril",), alone=True)
async def all_due(stage: Stage) -> None:
    stage.no_stalls = True
    count = stage.times(50_000)
    async with stage.look() as client, Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        await watch_commands(client)
        due = time.monotonic() + 4 + count / 6000
        for start in range(0, count, 1000):
            delay = due - time.monotonic()
            await queue.add_bulk(
                NewJob("work", {}, {"job_id": f"due-{start + number}", "delay": delay})
                for number in range(1000)
            )
        stage.facts["delayed"] = waiting = await queue.get_delayed_count()
        if time.monotonic() > due or waiting < count:
            stage.faults.append(
                f"{waiting:,} of {count:,} jobs were delayed when all were added: nothing is proved"
            )
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        while await queue.get_delayed_count():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    if (took := await longest(stage)) > LONGEST_MS:
        stage.faults.append(f"a command kept the server for {took:g} ms, not {LONGEST_MS} ms")


@cell(
    "38",
    "a flow of 5,000 children, one that is 50 deep, and 1,000 parents of 10 children each",
    QUIET,
    clients=("toril",),
    alone=True,
)
async def large_flows(stage: Stage) -> None:
    stage.no_stalls = True
    count = stage.times(5000)
    async with (
        stage.look() as client,
        Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue,
        FlowProducer(connection=queue.connection) as flows,
    ):
        await watch_commands(client)
        began = time.monotonic()
        children = [FlowJob("work", QUEUE, {}, {"job_id": f"child-{number}"}) for number in range(count)]
        wide = await flows.add(FlowJob("work", QUEUE, {}, {"job_id": "wide"}, children))
        deep = FlowJob("work", QUEUE, {}, {"job_id": "level-0"})
        for level in range(1, 50):
            deep = FlowJob("work", QUEUE, {}, {"job_id": f"level-{level}"}, [deep])
        bottom = await flows.add(deep)
        await wide.job.result(timeout=100)
        await bottom.job.result(timeout=100)
        stage.facts["wide_and_deep_s"] = round(time.monotonic() - began, 1)
        values = await wide.job.get_children_values()
        if len(values) != count:
            stage.faults.append(f"I11 the parent has {len(values)} results of {count}")
        began = time.monotonic()
        parents = stage.times(1000)
        added: list[Any] = []
        for start in range(0, parents, 50):
            added = await asyncio.gather(*(flows.add(family(number)) for number in range(start, start + 50)))
        await asyncio.gather(*(one.job.result(timeout=100) for one in added))
        while (left := await queue.get_waiting_children_count()) and time.monotonic() - began < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        stage.facts["families_s"] = round(time.monotonic() - began, 1)
        if left:
            stage.faults.append(f"I11 {left} parents still wait")
    await longest(stage)


def family(number: int) -> FlowJob:
    """One of many parents, with its ten children."""
    children = [FlowJob("work", QUEUE, {}, {"job_id": f"family-{number}-{child}"}) for child in range(10)]
    return FlowJob("work", QUEUE, {}, {"job_id": f"family-{number}"}, children)
