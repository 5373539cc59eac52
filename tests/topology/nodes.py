"""Several servers that know each other: a primary with its replica and a Sentinel, or a cluster."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from tests.patience import until
from toril import ConfigurationError
from toril.embedded import find_binary

__all__ = ["Node", "cluster", "primary_and_replica", "sentinel", "sentinel_over"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """One server, or one Sentinel. It ends with its `async with`."""

    def __init__(self, port: int, directory: Path, *options: str, config: str = "") -> None:
        self.port = port
        self._directory = directory
        self._options = options
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        # Any: redis-py's types mix sync and async answers.
        self.client: Any = redis.asyncio.Redis(
            port=port, decode_responses=True, socket_timeout=15, protocol=2
        )

    async def start(self) -> None:
        try:
            binary = str(find_binary())
        except ConfigurationError as error:
            pytest.skip(str(error))
        file = self._directory / f"{self.port}.conf"
        if not file.exists():
            file.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self._directory}\nlogfile {self._directory}/{self.port}.log\n"
                + (
                    ""
                    if "--sentinel" in self._options
                    else f'save ""\nappendonly no\ndbfilename {self.port}.rdb\n'
                )
                + self._config
            )
        self._process = subprocess.Popen([binary, str(file), *self._options], stdout=subprocess.DEVNULL)
        await until(f"the answer of port {self.port}", self._answers)

    async def _answers(self) -> bool:
        try:
            return bool(await self.client.ping())
        except (RedisError, OSError):
            return False

    async def ask(self, *args: Any) -> Any:
        return await self.client.execute_command(*args)

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def freeze(self) -> None:
        """It says nothing any more, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def __aenter__(self) -> Node:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(RedisError, OSError):
            await self.client.aclose()
        self.kill()


@asynccontextmanager
async def _nodes(count: int, config: str) -> AsyncGenerator[tuple[Path, list[Node], AsyncExitStack]]:
    directory = Path(tempfile.mkdtemp(prefix="toril-nodes-"))
    try:
        async with AsyncExitStack() as stack:
            nodes: list[Node] = []
            for _ in range(count):
                port = free_port()
                extra = config.format(port=port, bus=free_port())
                nodes.append(await stack.enter_async_context(Node(port, directory, config=extra)))
            yield directory, nodes, stack
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def primary_and_replica() -> AsyncGenerator[tuple[Node, Node]]:
    """A primary, and a replica that follows it."""
    async with _nodes(2, "repl-diskless-sync-delay 0\n") as (_, (primary, replica), _stack):
        await replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        await until("the replica's link", lambda: _linked(replica))
        yield primary, replica


@asynccontextmanager
async def sentinel() -> AsyncGenerator[tuple[Node, Node, Node]]:
    """A primary, its replica, and a Sentinel that calls them `mymaster` and has seen both."""
    async with _nodes(2, "repl-diskless-sync-delay 0\n") as (directory, (primary, replica), stack):
        await replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        watcher = Node(
            free_port(),
            directory,
            "--sentinel",
            config=f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds mymaster 700\nsentinel failover-timeout mymaster 1000\n",
        )
        await stack.enter_async_context(watcher)
        await until("the replica's link", lambda: _linked(replica))
        await until("the Sentinel to see the replica", lambda: _watched(watcher))
        yield primary, replica, watcher


@asynccontextmanager
async def sentinel_over(port: int) -> AsyncGenerator[Node]:
    """A Sentinel that calls the server at a port `mymaster`; it has no replica."""
    with tempfile.TemporaryDirectory(prefix="toril-nodes-") as directory:
        config = f"sentinel monitor mymaster 127.0.0.1 {port} 1\n"
        async with Node(free_port(), Path(directory), "--sentinel", config=config) as watcher:
            yield watcher


async def _linked(replica: Node) -> bool:
    role: list[Any] = await replica.ask("ROLE")
    return bool(role[0] == "slave" and role[3] == "connected")


async def _watched(watcher: Node) -> bool:
    return bool(await watcher.ask("SENTINEL", "REPLICAS", "mymaster"))


@asynccontextmanager
async def cluster(replicas: int = 0) -> AsyncGenerator[list[Node]]:
    """Three primaries with the slots between them, then replicas of the first."""
    config = (
        "cluster-enabled yes\ncluster-config-file {port}.nodes\ncluster-port {bus}\ncluster-node-timeout 1500\n"
        "cluster-require-full-coverage no\nrepl-diskless-sync-delay 0\n"
    )
    async with _nodes(3 + replicas, config) as (_, nodes, _stack):
        bounds = [0, 5461, 10923, 16384]
        for number, node in enumerate(nodes[:3]):
            await node.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            # Different epochs from the start, or they would have to be settled first.
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            bus = await _bus(node)
            await nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for node in nodes:
            await until("the nodes to know each other", lambda node=node: _knows(node, len(nodes)))
        first = await nodes[0].ask("CLUSTER", "MYID")
        for node in nodes[3:]:
            await node.ask("CLUSTER", "REPLICATE", first)
            await until("the replica's link", lambda node=node: _linked(node))
        for node in nodes:
            await until("a cluster in order", lambda node=node: _is_ok(node))
        yield nodes


async def _bus(node: Node) -> int:
    return int((await node.ask("CONFIG", "GET", "cluster-port"))[1])


async def _knows(node: Node, count: int) -> bool:
    info: str = await node.ask("CLUSTER", "INFO")
    return f"cluster_known_nodes:{count}\r" in info


async def _is_ok(node: Node) -> bool:
    info: str = await node.ask("CLUSTER", "INFO")
    return "cluster_state:ok" in info and "cluster_slots_assigned:16384" in info
