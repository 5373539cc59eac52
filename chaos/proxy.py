"""A TCP proxy between clients and a server that does on purpose what networks do by chance.

One `Proxy` listens on a free loopback port. What it does to all of its connections is set by its attributes, at
any time: `delay`, `throttle`, `black_hole`, `is_refusing`; `reset` ends them at once with an RST, `abandon` lets them
hang for ever. What it does to single calls is a `Rule`: the call reaches the server, which does its work, and then the
answer is lost, cut in its middle, or replaced by garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

__all__ = ["Proxy", "Rule", "frame_end"]

_CHUNK: Final = 65_536
_SCRIPT_COMMANDS: Final = frozenset({b"EVALSHA", b"EVAL", b"FCALL"})
GARBAGE: Final = b"\x00?\xff!this is no answer\r\n$-7\r\n"

What = Literal["drop", "cut", "garbage"]


@dataclass
class Rule:
    """What happens to the answers of calls of scripts.

    Attributes:
        what: `drop` loses the answer and resets the connection, `cut` lets half of its bytes through first, `garbage`
            sends something else in its place.
        share: Of the calls that are meant, this part is hit by chance.
        nth: Only the n-th of the calls that are meant, from 1; then nothing more.
        names: Only calls whose script has one of these names; None means all. See `Proxy.name_of`.
        most: No more hits than this.
        hits: How often it has struck, by name.
    """

    what: What = "drop"
    share: float = 1.0
    nth: int | None = None
    names: frozenset[str] | None = None
    most: int | None = None
    hits: Counter[str] = field(default_factory=Counter[str])
    _seen: int = 0

    def strikes(self, name: str, chance: random.Random) -> bool:
        """Decide about one call."""
        if self.names is not None and name not in self.names:
            return False
        if self.most is not None and self.hits.total() >= self.most:
            return False
        self._seen += 1
        if self.nth is not None and self._seen != self.nth:
            return False
        if self.nth is None and chance.random() >= self.share:
            return False
        self.hits[name] += 1
        return True


def frame_end(data: bytes | bytearray, start: int = 0) -> int | None:
    """Return where the RESP value ends that begins at `start`; None where it is not complete yet.

    Raises:
        ValueError: No RESP value begins there.
    """
    wanted, at = 1, start
    while wanted:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        kind, rest = data[at : at + 1], data[at + 1 : line]
        at = line + 2
        wanted -= 1
        if kind == b"$":
            if int(rest) >= 0:
                at += int(rest) + 2
                if at > len(data):
                    return None
        elif kind in (b"*", b"~", b">"):
            wanted += max(0, int(rest))
        elif kind == b"%":
            wanted += 2 * int(rest)
        elif kind not in (b"+", b"-", b":", b"_", b"#", b","):
            raise ValueError("this is no RESP")
    return at


class Proxy:
    """Stands before one server. `async with` opens and closes it.

    Args:
        host: Of the server.
        port: Likewise.
        chance: Decides what is left to chance.
        names: The names of scripts by their SHA, for rules that mean certain scripts.
        is_deaf: It does not look into what goes through, so no rule applies: between servers there is more than RESP.
    """

    def __init__(
        self,
        port: int,
        chance: random.Random,
        *,
        host: str = "127.0.0.1",
        names: dict[str, str] | None = None,
        is_deaf: bool = False,
    ) -> None:
        self._where = (host, port)
        self._is_deaf = is_deaf
        self._chance = chance
        self._names = names or {}
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.delay: tuple[float, float] = (0.0, 0.0)
        """Seconds by which each chunk is late, and how much more or less by chance."""
        self.throttle: float | None = None
        """Bytes per second for each connection and direction; None sets no limit."""
        self.is_refusing = False
        """New connections are reset at once."""
        self.rule: Rule | None = None
        self.connections = 0
        """How many have been made through it."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        self.black_hole = False
        tasks = [link.task for link in self._links if link.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def black_hole(self) -> bool:
        """Whether all connections stay open and carry nothing: the other end has vanished without a word."""
        return not self._open.is_set()

    @black_hole.setter
    def black_hole(self, is_on: bool) -> None:
        if is_on:
            self._open.clear()
        else:
            self._open.set()

    def reset(self) -> int:
        """End all connections with an RST; return how many there were."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def abandon(self) -> int:
        """Let all present connections carry nothing any more, without a word; new ones are as good as ever."""
        for link in self._links:
            link.is_abandoned = True
        return len(self._links)

    def name_of(self, sha: str) -> str:
        """The name of a script, or the beginning of its hash."""
        return self._names.get(sha, sha[:8])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, writer)
        link.task = asyncio.current_task()
        self._links.add(link)
        self.connections += 1
        try:
            if self.is_refusing:
                return
            await self._open.wait()
            there_reader, link.there = await asyncio.open_connection(*self._where)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, link.there, link.heard, link))
                group.create_task(self._pump(there_reader, writer, link.answered, link))
        except* (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, _EndedError):
            # The task is this connection's own: who cancels it wants nothing but its end.
            pass
        finally:
            link.reset()
            self._links.discard(link)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        look: Callable[[bytes], tuple[bytes, bool]],
        link: _Link,
    ) -> None:
        while data := await source.read(_CHUNK):
            await self._open.wait()
            if link.is_abandoned:
                continue
            mean, jitter = self.delay
            if mean:
                await asyncio.sleep(max(0.0, mean + self._chance.uniform(-jitter, jitter)))
            if self.throttle is not None:
                await asyncio.sleep(len(data) / self.throttle)
            data, goes_on = (data, True) if self._is_deaf else look(data)
            target.write(data)
            with contextlib.suppress(ConnectionError):
                await target.drain()
            if not goes_on:
                break
        raise _EndedError

    def strikes(self, command: bytes) -> What | None:
        """What is to happen to the answer of this command."""
        if self.rule is None:
            return None
        words = command.split(b"\r\n", 6)
        if len(words) < 5 or words[2].upper() not in _SCRIPT_COMMANDS:
            return None
        name = self.name_of(words[4].decode("latin-1"))
        return self.rule.what if self.rule.strikes(name, self._chance) else None


class _EndedError(Exception):
    """One side has ended, so the other ends too."""


class _Link:
    """One client's connection: which answers are still to come, and which of them are meant."""

    def __init__(self, proxy: Proxy, here: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._here = here
        self.there: asyncio.StreamWriter | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_abandoned = False
        self._asked = bytearray()
        self._told = bytearray()
        self._fates: deque[What | None] = deque()

    def heard(self, data: bytes) -> tuple[bytes, bool]:
        """Note what the client asks. All of it goes on."""
        self._asked += data
        at = 0
        while (end := frame_end(self._asked, at)) is not None and end > at:
            self._fates.append(self._proxy.strikes(bytes(self._asked[at:end])))
            at = end
        del self._asked[:at]
        return data, True

    def answered(self, data: bytes) -> tuple[bytes, bool]:
        """Let answers through up to the first that is meant."""
        self._told += data
        at = 0
        out = bytearray()
        while self._told[at:] and (end := frame_end(self._told, at)) is not None:
            fate = self._fates.popleft() if self._fates else None
            answer = self._told[at:end]
            at = end
            if fate == "drop":
                return bytes(out), False
            if fate == "cut":
                return bytes(out + answer[: max(1, len(answer) // 2)]), False
            out += GARBAGE if fate == "garbage" else answer
        del self._told[:at]
        return bytes(out), True

    def reset(self) -> None:
        for writer in (self._here, self.there):
            if writer is not None and not writer.transport.is_closing():
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
