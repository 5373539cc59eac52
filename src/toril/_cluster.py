"""A cluster: which node has the slot, and what to do when it has moved.

All keys of a queue are in one slot, so a call concerns one node. Each node is a `Connection` of its own; a `Router`
knows which one has which slot, and learns it anew when a node says that the slot is elsewhere, or is gone.
What a node answers with MOVED, ASK, TRYAGAIN or CLUSTERDOWN it has not done, so it is asked for again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any, Final, cast

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from ._answers import nonsense, understood
from ._topology import Place
from .connection import CALL_TIMEOUT, Connection, Lane
from .errors import (
    ConfigurationError,
    ConnectionLostError,
    ServerRefusedError,
    ServerUnreachableError,
    TorilError,
)

__all__ = ["ClusterLane", "Router", "slot_of"]

_SLOTS: Final = 16384
# How long a call waits for a slot that is on its way, or for a fail-over.
_PATIENCE: Final = CALL_TIMEOUT
_PAUSE: Final = 0.1
_KEYLESS: Final = frozenset(
    (
        *("ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "DISCARD", "ECHO", "EXEC", "INFO"),
        *("MULTI", "PING", "SCRIPT", "TIME", "WAIT", "WAITAOF"),
    )
)
_ALL_KEYS: Final = frozenset(("DEL", "EXISTS", "UNLINK"))

Send = Callable[[Connection], Awaitable[Any]]


def _keys(args: Sequence[Any]) -> Sequence[Any]:
    """The keys of a command."""
    name = str(args[0]).upper()
    if name in ("EVALSHA", "EVAL"):
        return args[3 : 3 + int(args[2])]
    if name in _KEYLESS:
        return ()
    if name == "XREAD":
        first = [str(arg).upper() for arg in args].index("STREAMS") + 1
        return args[first : first + (len(args) - first) // 2]
    if name == "SCAN":
        # Where the pattern has a hash tag, all that it can match is in one slot.
        patterns = [arg for before, arg in pairwise(args) if str(before).upper() == "MATCH"]
        return [pattern for pattern in patterns if "{" in pattern]
    return args[1:] if name in _ALL_KEYS else args[1:2]


def slot_of(commands: Sequence[Sequence[Any]]) -> int | None:
    """Return the slot that commands are about; None for any node.

    Raises:
        ConfigurationError: They are about several.
    """
    slots = {key_slot(str(key).encode()): str(key) for command in commands for key in _keys(command)}
    if len(slots) > 1:
        one, other, *_ = slots.values()
        raise ConfigurationError(
            f"on a cluster what changes together has to be in one slot, and {one!r} and {other!r} are not: put a "
            "hash tag into the prefix, Queue(name, prefix='{bull}'), the same for all queues of a flow"
        )
    return next(iter(slots), None)


class Router:
    """Sends calls to the node that has the slot.

    Args:
        place: The cluster.
        make: Makes the connection to one node, from its URL.
        shown: The cluster's URL without its password.
    """

    def __init__(self, place: Place, make: Callable[[str], Connection], shown: str) -> None:
        self._place = place
        self._make = make
        self._shown = shown
        self._seeds = [place.node(host, port) for host, port in place.hosts]
        self._nodes: dict[str, Connection] = {}
        self._owners: list[str] = []
        self._is_stale = True
        # When each that was asked where the slots are gave no answer.
        self._silent: dict[str, float] = {}

    async def execute(self, args: tuple[Any, ...]) -> Any:
        """As `Connection.execute`."""
        return await self.run([args], lambda node: node.execute(*args))

    async def execute_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """As `Connection.execute_all`."""
        answers: list[Any] = await self.run(commands, lambda node: node.execute_all(commands))
        return answers

    async def execute_then(
        self, first: tuple[Any, ...], second: tuple[Any, ...], timeout: float
    ) -> list[Any]:
        """As `Connection.execute_then`."""
        answers: list[Any] = await self.run(
            [first, second], lambda node: node.execute_then(first, second, timeout=timeout)
        )
        return answers

    async def run(self, commands: Sequence[tuple[Any, ...]], send: Send) -> Any:
        """Send to the node that has the slot; where it has moved, to the node that has it now."""
        slot = slot_of(commands)
        deadline = time.monotonic() + _PATIENCE
        while True:
            node = await self._owner(slot)
            try:
                return await send(node)
            except ServerUnreachableError:
                # Nothing was sent. Perhaps another node has taken over.
                self._is_stale = True
                if await self._owner(slot) is node:
                    raise
            except ConnectionLostError:
                self._is_stale = True
                raise
            except ServerRefusedError as error:
                cause: Any = error.__cause__
                if time.monotonic() > deadline:
                    raise
                if isinstance(cause, AskError) and not isinstance(cause, MovedError) and len(commands) == 1:
                    asked = self._node(self._place.node(cause.host, cause.port))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
                    try:
                        return (await asked.execute_all([("ASKING",), commands[0]]))[-1]
                    except ServerRefusedError as refused:
                        if not isinstance(refused.__cause__, (TryAgainError, AskError)):
                            raise
                elif isinstance(cause, (AskError, TryAgainError, ClusterDownError)):
                    self._is_stale = True
                    if isinstance(cause, MovedError):
                        # The node says where; the whole map is read with the next call.
                        continue
                else:
                    raise
                await asyncio.sleep(_PAUSE * random.uniform(0.5, 1))

    async def nodes(self) -> list[Connection]:
        """Return a connection to each node that has slots."""
        await self._owner(0)
        return [self._node(url) for url in dict.fromkeys(self._owners) if url]

    def lane(self, name: str | None) -> ClusterLane:
        """As `Connection.lane`."""
        return ClusterLane(self, name)

    def sync_client(self, key: str, timeout: float) -> redis.Redis:
        """Return a blocking client to the node that has a key, as far as is known now."""
        slot = key_slot(key.encode())
        if self._is_stale:
            deadline = time.monotonic() + _PATIENCE
            for url in self._candidates():
                if time.monotonic() > deadline:
                    break
                client = self._node(url).sync_client(timeout=timeout)
                try:
                    self._learn(cast("Any", client).execute_command("CLUSTER", "SLOTS"), url)
                    break
                except redis.RedisError:
                    self._silent[url] = time.monotonic()
                finally:
                    client.close()
        owner = self._owners[slot] if self._owners else ""
        # Of a slot that nobody owns just now, any node can tell as much.
        return self._node(owner or self._seeds[0]).sync_client(timeout=timeout)

    def suspect(self) -> None:
        """Learn the slots anew before the next call: somebody has met a fault."""
        self._is_stale = True

    async def close(self) -> None:
        """Close what this event loop has opened."""
        for node in list(self._nodes.values()):
            await node.close()

    def _node(self, url: str) -> Connection:
        node = self._nodes.get(url)
        if node is None:
            node = self._nodes[url] = self._make(url)
        return node

    async def _owner(self, slot: int | None) -> Connection:
        if self._is_stale:
            await self._refresh()
        url = self._owners[random.randrange(_SLOTS) if slot is None else slot]
        if not url:
            self._is_stale = True
            raise ServerRefusedError(f"{self._shown}: CLUSTERDOWN no node has slot {slot}")
        return self._node(url)

    def _candidates(self) -> list[str]:
        known = list(dict.fromkeys(url for url in self._owners if url))
        random.shuffle(known)
        # Who gave no answer comes last: in an outage not all can be asked in the time of one call.
        return sorted(dict.fromkeys([*known, *self._seeds]), key=lambda url: self._silent.get(url, 0.0))

    async def _refresh(self) -> None:
        last: TorilError | None = None
        deadline = time.monotonic() + _PATIENCE
        for url in self._candidates():
            if time.monotonic() > deadline:
                break
            try:
                answer = await self._node(url).execute("CLUSTER", "SLOTS")
                self._learn(understood(list[list[Any]], answer, f"{self._shown}: CLUSTER SLOTS"), url)
                return
            except ConfigurationError:
                raise
            except TorilError as error:
                last = error
                self._silent[url] = time.monotonic()
        raise last or ServerUnreachableError(f"cannot reach {self._shown}")

    def _learn(self, ranges: list[list[Any]], asked: str) -> None:
        owners = [""] * _SLOTS
        for given in ranges:
            # Behind the primary's address come its name and the replicas.
            try:
                first, last, (host, port, *_), *_ = given
                first, last, port = int(first), int(last), int(port)
            except (TypeError, ValueError) as error:
                raise nonsense(f"{self._shown}: CLUSTER SLOTS", type(error).__name__) from error
            # Without a host it is the one that was asked.
            url = self._place.node(host, port) if host else asked
            owners[first : last + 1] = [url] * (last - first + 1)
        self._owners = owners
        self._silent.pop(asked, None)
        self._is_stale = False


class ClusterLane(Lane):
    """A lane to whichever node has the slot of the command; for one queue that is one node, until it moves."""

    __slots__ = ("_lane", "_node", "_router", "_wanted_name")

    def __init__(self, router: Router, name: str | None) -> None:
        self._router = router
        self._wanted_name = name
        self._node: Connection | None = None
        self._lane: Lane | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a socket, as far as we know."""
        return self._lane is not None and self._lane.is_open

    @property
    def is_fresh(self) -> bool:
        """Whether there is a socket that has been in use until just now."""
        return self._lane is not None and self._lane.is_fresh

    async def open(self) -> None:
        """Nothing: which node it goes to is known with the first call."""

    async def execute(self, *args: Any, timeout: float = CALL_TIMEOUT) -> Any:
        """As `Lane.execute`."""
        return await self._router.run([args], lambda node: self._at(node).execute(*args, timeout=timeout))

    async def execute_all(
        self, commands: Sequence[tuple[Any, ...]], *, timeout: float = CALL_TIMEOUT
    ) -> list[Any]:
        """As `Lane.execute_all`."""
        answers: list[Any] = await self._router.run(
            commands, lambda node: self._at(node).execute_all(commands, timeout=timeout)
        )
        return answers

    def abort(self) -> None:
        """As `Lane.abort`."""
        if self._lane is not None:
            self._lane.abort()

    async def close(self) -> None:
        """As `Lane.close`."""
        if self._lane is not None:
            await self._lane.close()

    def _at(self, node: Connection) -> Lane:
        if self._lane is None or node is not self._node:
            self.abort()
            self._node, self._lane = node, node.lane(name=self._wanted_name)
        return self._lane
