"""Servers that know each other, for the cells that harm them: a Sentinel over a primary and its replica, a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import redis.asyncio

from toril.embedded import EmbeddedServer, find_binary

from .stage import Running, Stage

__all__ = ["ask", "cluster", "replica_of", "until", "watch_over"]


async def ask(port: int, *command: Any) -> Any:
    """Ask one server, over a connection of its own."""
    async with redis.asyncio.Redis(port=port, decode_responses=True, protocol=2, socket_timeout=10) as client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def until(what: str, is_so: Callable[[], Awaitable[Any]], seconds: float = 30) -> None:
    """Ask again and again until the answer is yes; a server that does not answer yet has not said so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, OSError):
            if await is_so():
                return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"waited {seconds:g} s for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def replica_of(stage: Stage, port: int) -> EmbeddedServer:
    """Start a replica of the server at a port, and wait until it follows."""
    replica = EmbeddedServer(config={"replicaof": f"127.0.0.1 {port}"})
    await asyncio.to_thread(replica.start)
    stage.exits.callback(replica.stop)
    await until("the replica's link", partial(_follows, replica.port))
    return replica


async def _follows(port: int) -> bool:
    role: list[Any] = await ask(port, "ROLE")
    return bool(role[0] == "slave" and role[3] == "connected")


async def watch_over(stage: Stage, primary: int) -> int:
    """Start a Sentinel over the primary at a port; return the Sentinel's, once it knows the replica."""
    port = free_port()
    rules = stage.directory / "sentinel.conf"
    rules.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {stage.directory}\n"
        f"sentinel monitor main 127.0.0.1 {primary} 1\n"
        # A Sentinel asks once a second; who may be silent for no longer is taken for dead now and then.
        "sentinel down-after-milliseconds main 1500\nsentinel failover-timeout main 3000\n"
    )
    sentinel = Running([str(find_binary()), str(rules), "--sentinel"], stage.directory / "sentinel.log")
    stage.exits.callback(sentinel.kill)
    await until("the Sentinel to know the replica", lambda: ask(port, "SENTINEL", "REPLICAS", "main"))
    return port


async def cluster(stage: Stage, with_replica: bool = False) -> list[EmbeddedServer]:
    """Start three primaries with the slots between them, and perhaps a replica of the first as the fourth."""
    nodes: list[EmbeddedServer] = []
    for _ in range(3 + with_replica):
        config = {
            "cluster-enabled": "yes",
            "cluster-port": str(free_port()),
            "cluster-node-timeout": "2000",
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": "0",
        }
        node = EmbeddedServer(config=config)
        await asyncio.to_thread(node.start)
        stage.exits.callback(node.stop)
        nodes.append(node)
    bounds = (0, 5461, 10923, 16384)
    for number, node in enumerate(nodes[:3]):
        await ask(node.port, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        # Different epochs from the start, or they would have to be settled first.
        await ask(node.port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        bus = (await ask(node.port, "CONFIG", "GET", "cluster-port"))[1]
        await ask(nodes[0].port, "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    ports = [node.port for node in nodes]
    for port in ports:
        await until("the nodes to know each other", partial(_says, port, f"known_nodes:{len(nodes)}\r"))
    first = await ask(ports[0], "CLUSTER", "MYID")
    for port in ports[3:]:
        await ask(port, "CLUSTER", "REPLICATE", first)
        await until("the replica's link", partial(_follows, port))
    for port in ports:
        await until("a cluster in order", partial(_says, port, "state:ok", "slots_assigned:16384"))
    return nodes


async def _says(port: int, *words: str) -> bool:
    info: str = await ask(port, "CLUSTER", "INFO")
    return all(f"cluster_{word}" in info for word in words)
