"""Calls that form by themselves: what is handed in while a call is on its way shares the next one.

When nothing is on its way a batch is one item, and the price is one round trip. Under load batches
grow, and share the price of a round trip. Nothing is held back in order to make a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")

# Two calls in flight keep the server busy while Python prepares the next one; more only make batches smaller.
_CALLS_IN_FLIGHT: Final = 2


class Batcher(Generic[T, R]):
    """Collects items of one event loop and sends them in lists.

    Args:
        send: Sends a list and returns one answer per item, in order. What it raises, each item's caller gets.
        most: The longest list.
    """

    def __init__(self, send: Callable[[list[T]], Awaitable[list[R]]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._is_starting = False

    def submit(self, item: T) -> asyncio.Future[R]:
        """Hand in an item; the future has its answer. Cancelling the future does not call the item back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._is_starting and len(self._calls) < _CALLS_IN_FLIGHT:
            # One turn of the loop later, so that everybody who is adding right now comes along.
            self._is_starting = True
            loop.call_soon(self._start)
        return future

    async def drain(self) -> None:
        """Wait until everything that was handed in has been answered."""
        while self._calls or self._waiting:
            if self._calls:
                await asyncio.wait(self._calls)
            else:
                await asyncio.sleep(0)

    def _start(self) -> None:
        self._is_starting = False
        if self._waiting and len(self._calls) < _CALLS_IN_FLIGHT:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            call = asyncio.get_running_loop().create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    async def _call(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                    # The caller may be gone; its error is not news then.
                    future.exception()
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if self._waiting:
            self._start()
