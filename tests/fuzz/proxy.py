"""A door in front of a server that answers chosen commands with an error in the server's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["Door", "open_door"]

Rule = Callable[[list[bytes]], bool]


class Door:
    """Hands calls on, one after another.

    Attributes:
        port: Where it listens.
        refused: How many calls it has answered itself.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.refused = 0
        self._target = target
        self._rule: Rule | None = None
        self._error = b""
        self._left = 0

    def refuse(self, rule: Rule, error: str, times: int) -> None:
        """Answer the next calls that the rule picks with this error; the server never hears of them."""
        self.answer(rule, b"-" + error.encode() + b"\r\n", times)

    def answer(self, rule: Rule, answer: bytes, times: int) -> None:
        """The same with any answer, as it goes over the wire."""
        self._rule, self._error, self._left = rule, answer, times

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        with suppress(OSError, asyncio.IncompleteReadError, ValueError):
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                while True:
                    raw, args = await _request(reader)
                    if self._left and self._rule is not None and self._rule(args):
                        self._left -= 1
                        self.refused += 1
                        if args[0].upper() == b"EXEC":
                            # An EXEC that fails ends its transaction, too.
                            inner_writer.write(b"*1\r\n$7\r\nDISCARD\r\n")
                            await _answer(inner_reader)
                        writer.write(self._error)
                    else:
                        inner_writer.write(raw)
                        writer.write(await _answer(inner_reader))
                    await writer.drain()
            finally:
                inner_writer.close()
        writer.close()


async def _request(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    raw = await reader.readuntil(b"\r\n")
    args: list[bytes] = []
    for _ in range(int(raw[1:])):
        head = await reader.readuntil(b"\r\n")
        body = await reader.readexactly(int(head[1:]) + 2)
        args.append(body[:-2])
        raw += head + body
    return raw, args


async def _answer(reader: asyncio.StreamReader) -> bytes:
    raw = await reader.readuntil(b"\r\n")
    if raw[:1] == b"$" and raw[1:2] != b"-":
        raw += await reader.readexactly(int(raw[1:]) + 2)
    elif raw[:1] == b"*" and raw[1:2] != b"-":
        for _ in range(int(raw[1:])):
            raw += await _answer(reader)
    return raw


@asynccontextmanager
async def open_door(target: int) -> AsyncGenerator[Door]:
    """Open a door to the server at this port."""
    door = Door(target)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await door.serve(reader, writer)
        finally:
            tasks.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        door.port = listening.sockets[0].getsockname()[1]
        yield door
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
