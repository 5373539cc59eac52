"""Harm to several servers that know each other: Sentinel's fail-overs, partitions, a cluster's nodes and slots.

Replication is asynchronous: what a replica had not got when it began to rule is lost, as with any client, and is
reported. What must hold is the rest: no queue that contradicts itself, no worker that does not come back.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import ResponseError

from chaos.ledger import read
from chaos.stage import QUEUE, Plan, SkipCellError, Stage
from chaos.topology import ask, cluster, replica_of, until, watch_over
from toril.embedded import EmbeddedServer

from ._registry import cell

ALONE = Plan(workers=0)
REPLICATION: Final = 1.0
"""Seconds by which a replica may be behind."""


async def begin(stage: Stage, url: str) -> None:
    """Three workers and a producer that find the server in this way."""
    for _ in range(3):
        stage.start_worker(url=url)
    stage.start_producer(url=url)
    await stage.ready(40)
    await stage.pause(1.0)


async def rules(port: int) -> bool:
    """Whether the server at a port is a primary."""
    role: list[Any] = await ask(port, "ROLE")
    return bool(role[0] == "master")


async def take_over(stage: Stage, primary: EmbeddedServer, replica_port: int) -> None:
    """Kill the primary, wait until its replica rules, and watch what follows."""
    stage.fault("primary ends")
    began = time.monotonic()
    await asyncio.to_thread(primary.kill)
    stage.port = replica_port
    await until("the replica to rule", lambda: rules(replica_port))
    stage.healed("replica rules")
    stage.forgets(began - REPLICATION)
    stage.facts["promoted_after_s"] = round(time.monotonic() - began, 1)
    await stage.pause(8.0)


@cell(
    "18",
    "fail-over by Sentinel: the primary is killed",
    ALONE,
    clients=("toril",),
    begins=False,
    within=10,
)
async def fail_over(stage: Stage) -> None:
    replica = await replica_of(stage, stage.port)
    await begin(stage, f"redis+sentinel://127.0.0.1:{await watch_over(stage, stage.port)}/main/0")
    await take_over(stage, stage.server, replica.port)


async def part(stage: Stage, *safe: str, takes: float | None = None) -> None:
    """The old primary and one producer on one side; replica, Sentinel, workers and another producer on the other.

    Args:
        stage: Where.
        safe: Settings of the old primary.
        takes: For how many seconds it goes on taking at most; None where it never stops.
    """
    link = await stage.open_proxy(is_deaf=True)
    replica = await replica_of(stage, link.port)
    for setting in safe:
        await ask(stage.port, "CONFIG", "SET", *setting.split())
    await begin(stage, f"redis+sentinel://127.0.0.1:{await watch_over(stage, link.port)}/main/0")
    usual = stage.producer
    alone = stage.start_producer(url=f"redis://127.0.0.1:{stage.port}", tag="alone", rate=50)
    await until("the other producer", lambda: _has_added(stage, "alone-"))
    stage.fault("partition")
    parted = time.monotonic()
    link.black_hole = True
    old, stage.port = stage.port, replica.port
    await until("the replica to rule", lambda: rules(replica.port))
    stage.healed("replica rules")
    await stage.pause(5.0)
    link.black_hole = False
    await until("the old primary to follow", lambda: _has_stepped_down(old))
    stage.forgets(parted - REPLICATION, None if takes is None else parted + takes)
    await stage.pause(1.0)
    alone.kill()
    stage.producer = usual
    stage.facts["acknowledged_alone"] = sum(
        line["e"] == "acked" and line["id"].startswith("alone-") for line in read(stage.directory)
    )


async def _has_added(stage: Stage, tag: str) -> bool:
    return any(line["e"] == "acked" and line["id"].startswith(tag) for line in read(stage.directory))


async def _has_stepped_down(port: int) -> bool:
    return not await rules(port)


@cell(
    "17a",
    "partition: the old primary and a producer alone for 6 s, Sentinel and workers on the other side",
    ALONE,
    clients=("toril",),
    begins=False,
    within=10,
)
async def part_unsafely(stage: Stage) -> None:
    await part(stage)


@cell(
    "17b",
    "the same, `min-replicas-to-write 1`, `min-replicas-max-lag 1`",
    ALONE,
    clients=("toril",),
    begins=False,
    within=10,
)
async def part_safely(stage: Stage) -> None:
    # A lag of a second, in whole seconds, looked at each second.
    await part(stage, "min-replicas-max-lag 1", "min-replicas-to-write 1", takes=4.0)


@cell("19", "fail-over by Sentinel, planned", ALONE, clients=("toril",), begins=False)
async def plan_fail_over(stage: Stage) -> None:
    """Valkey 9 can pause the old primary until the replica has all; older servers cannot, and may lose something."""
    replica = await replica_of(stage, stage.port)
    sentinel = await watch_over(stage, stage.port)
    await begin(stage, f"redis+sentinel://127.0.0.1:{sentinel}/main/0")
    stage.fault("fail-over")
    began = time.monotonic()
    is_coordinated = await order_fail_over(sentinel)
    stage.port = replica.port
    await until("the replica to rule", lambda: rules(replica.port))
    stage.healed("replica rules")
    ruled = time.monotonic()
    stage.facts["promoted_after_s"] = round(ruled - began, 1)
    await stage.pause(5.0)
    # Where it had all, the old primary goes on from there; else it has to be given everything anew.
    has_all = not (await ask(replica.port, "INFO", "stats"))["sync_full"]
    stage.facts |= {"is_coordinated": is_coordinated, "replica_had_all": has_all}
    if not (is_coordinated and has_all):
        stage.forgets(began - REPLICATION, ruled)


async def order_fail_over(sentinel: int, seconds: float = 30) -> bool:
    """Return whether the old primary waits for the replica. A Sentinel takes its time to trust a new replica."""
    deadline = time.monotonic() + seconds
    more = ["COORDINATED"]
    while True:
        try:
            await ask(sentinel, "SENTINEL", "FAILOVER", "main", *more)
            return bool(more)
        except ResponseError as error:
            if time.monotonic() > deadline:
                raise
            if "NOGOODSLAVE" not in str(error) and "INPROG" not in str(error):
                more = []
            await asyncio.sleep(0.2)


async def begin_on_cluster(stage: Stage, with_replica: bool = False) -> list[EmbeddedServer]:
    """Start a cluster and the load on it; the first of its nodes has the queue."""
    nodes = await cluster(stage, with_replica)
    assert key_slot(QUEUE.encode()) < 5461
    stage.port = nodes[0].port
    await stage.keep_events()
    # Not the node that has the queue: it is for the client to find that.
    await begin(stage, f"redis+cluster://127.0.0.1:{nodes[1].port},127.0.0.1:{nodes[2].port}")
    return nodes


@cell(
    "20",
    "a cluster's primary is killed, its replica takes over (node timeout 2 s)",
    ALONE,
    clients=("toril",),
    begins=False,
    within=10,
)
async def kill_node(stage: Stage) -> None:
    nodes = await begin_on_cluster(stage, with_replica=True)
    await take_over(stage, nodes[0], nodes[3].port)
    crossed = [
        line for one in stage.everyone if "CROSSSLOT" in (line := one.output.read_text(errors="replace"))
    ]
    if crossed:
        stage.faults.append(f"CROSSSLOT in the logs of {len(crossed)} processes")


@cell(
    "21",
    "the slot of a cluster's queue moves to another node, atomically",
    ALONE,
    clients=("toril",),
    begins=False,
)
async def move_slot(stage: Stage) -> None:
    """As Valkey 9 does it. Older servers move key by key, which no script of this format can stand: it makes keys."""
    nodes = await begin_on_cluster(stage)
    slot = key_slot(QUEUE.encode())
    target = await ask(nodes[1].port, "CLUSTER", "MYID")
    stage.fault("slot moves")
    try:
        await ask(nodes[0].port, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target)
    except ResponseError as error:
        raise SkipCellError(f"the server cannot move a slot atomically, as Valkey 9 can: {error}") from None
    await until("the slot's arrival", lambda: _has_slot(nodes[1].port, slot, target))
    stage.healed("slot has moved")
    stage.port = nodes[1].port
    await stage.pause(3.0)


async def _has_slot(port: int, slot: int, node: str) -> bool:
    for first, last, owner, *_ in await ask(port, "CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return bool(owner[2] == node)
    return False
