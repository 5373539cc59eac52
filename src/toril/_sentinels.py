"""Asking the Sentinels where the primary is: once for all who want to know, over connections that do not stay.

redis-py asks for each connection that it opens, and keeps what it asked over. After a fail-over all connections of a
program are opened at once, so that each of them would leave another one to the Sentinel.

And redis-py asks nobody while all goes well. An old primary that was cut off when another took over does not know of
that: it answers on, for ten seconds and more after it is back, until a Sentinel tells it. So they are asked now and
then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import redis.asyncio.sentinel
import redis.sentinel

__all__ = ["Address", "AsyncSentinels", "SyncSentinels", "sentinels_of"]

Address = tuple[str, int]

# Seconds.
_ASK_EVERY: Final = 2.0


class AsyncSentinels(redis.asyncio.sentinel.Sentinel):
    """The Sentinels, for one event loop.

    Attributes:
        primary: Where the primary was when they were last asked.
        moved: Is called when the primary is elsewhere.
        is_wanted: Whether anybody wants to know, for as long as which they are asked.
    """

    primary: Address | None = None
    moved: Callable[[Address], None] | None = None
    is_wanted: Callable[[], bool] | None = None
    _asking: asyncio.Task[Address] | None = None
    _again: asyncio.TimerHandle | None = None

    async def discover_master(self, service_name: str) -> Address:
        """Return the primary's address; all who ask while a question is on its way share the answer.

        Raises:
            MasterNotFoundError: No Sentinel knows one.
        """
        return await asyncio.shield(self.ask(service_name))

    def ask(self, service_name: str) -> asyncio.Task[Address]:
        """Begin to ask, where nobody has."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask(service_name))
            # All who want to know may be gone by then.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._asking.add_done_callback(lambda task: self._ask_again(task.get_loop(), service_name))
        return self._asking

    def _ask_again(self, loop: asyncio.AbstractEventLoop, service_name: str) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self.is_wanted is not None and self.is_wanted():
            self._again = loop.call_later(_ASK_EVERY, self.ask, service_name)

    async def _ask(self, service_name: str) -> Address:
        try:
            address = cast("Address", await cast("Any", super()).discover_master(service_name))
            before, self.primary = self.primary, address
            if before not in (None, address) and self.moved is not None:
                self.moved(address)
            return address
        finally:
            self._asking = None
            await self.aclose()

    async def stop(self) -> None:
        """Ask no more, and give up a question that is on its way."""
        self.is_wanted = None
        if self._again is not None:
            self._again.cancel()
        if (asking := self._asking) is not None:
            asking.cancel()
            await asyncio.wait((asking,))


class SyncSentinels(redis.sentinel.Sentinel):
    """The Sentinels, for a thread."""

    def discover_master(self, service_name: str) -> Address:
        """As that of `AsyncSentinels`; nobody shares it."""
        try:
            return cast("Address", cast("Any", super()).discover_master(service_name))
        finally:
            sentinels: Any = self.sentinels
            for one in sentinels:
                one.close()


def sentinels_of(client: redis.asyncio.Redis) -> AsyncSentinels | None:
    """The Sentinels that a client asks where the primary is, if it asks any."""
    manager: Any = getattr(client.connection_pool, "sentinel_manager", None)
    return manager if isinstance(manager, AsyncSentinels) else None
