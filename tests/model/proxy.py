"""A proxy in front of a server, which loses an answer or a question when it is told to."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

__all__ = ["Loss", "Proxy"]

Loss = Literal["question", "answer"]


class Proxy:
    """Passes bytes on in both directions.

    Attributes:
        loses: What it loses next, once: the connection that it is lost on breaks.
        losses: How often it did.
    """

    def __init__(self, host: str, port: int) -> None:
        self.loses: Loss | None = None
        self.losses = 0
        self._target = host, port
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen on a free port of this host, and return it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        ways = (
            self._pass(reader, server_writer, "question"),
            self._pass(server_reader, writer, "answer"),
        )
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            # Cancelled, it ends as if one side had hung up.
            with suppress(asyncio.CancelledError):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            for end in (server_writer, writer):
                end.close()
            self._open.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: Loss) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if self.loses == what:
                    self.loses = None
                    self.losses += 1
                    return
                writer.write(data)
                await writer.drain()
