"""A state machine on a real server, beside a model of it in Python: after each move both hold the same.

The same few examples run each time; `TORIL_EXAMPLES=2000 pytest tests/model` looks further, at others on each run, and
shortens what it finds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.differential.operations import OPERATIONS, NodeSide, TorilSide
from tests.interop.node import Node, NodeQueue, why_no_node
from toril import Queue

from .machine import Bench
from .moves import QueueMachine

EXAMPLES = int(os.environ.get("TORIL_EXAMPLES", "0"))


@pytest.fixture(params=[False, True], ids=["no faults", "faults"])
def bench(request: pytest.FixtureRequest, server_url: str, prefix: str) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        bench = Bench(runner, server_url, prefix, has_faults=request.param)
        node = Node(server_url) if why_no_node() is None else None
        if node is not None:
            bench.look = lambda queue: node_sees_the_same(node, bench, queue)
        yield bench
        if node is not None:
            node.stop()
        bench.close()
    print(
        f"{bench.examples} examples, {bench.steps} steps, {bench.moves} of them changed something, "
        f"{bench.proxy.losses} losses"
    )


async def node_sees_the_same(node: Node, bench: Bench, queue: Queue) -> None:
    """BullMQ's getters answer what toril's answer, about the queue and about every job that is left."""
    async with NodeQueue(node, queue.name, prefix=queue.keys.prefix, skipMetasUpdate=True) as of_node:
        theirs = NodeSide(queue.keys, bench.client, of_node, {}, cast(Any, None))
        ours = TorilSide(queue.keys, bench.client, bench.clock, queue, cast(Any, None))
        assert await OPERATIONS["counts"].node(theirs) == await OPERATIONS["counts"].toril(ours)
        for job in [*await queue.get_completed(), *await queue.get_failed()]:
            for getter in ("job", "state", "children"):
                reading = OPERATIONS[getter]
                seen = await reading.node(theirs, job=job.id), await reading.toril(ours, job=job.id)
                assert plain(seen[0]) == plain(seen[1])


def plain(value: Any) -> Any:
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_the_model_and_the_queue_agree(bench: Bench) -> None:
    """Whatever is done to a queue, it holds what the model holds, breaks no invariant, and can be ended and cleared."""
    machine = type("Machine", (QueueMachine,), {"bench": bench})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 60,
            stateful_step_count=60,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        ),
    )
