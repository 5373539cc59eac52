"""Asking the Sentinels where the primary is: once for all who want to know, over connections that do not stay.

redis-py asks for each connection that it opens, and keeps what it asked over. After a fail-over all connections of a
program are opened at once, so that each of them would leave another one to the Sentinel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import redis.asyncio.sentinel
import redis.sentinel

__all__ = ["Address", "AsyncSentinels", "SyncSentinels", "sentinels_of"]

Address = tuple[str, int]


class AsyncSentinels(redis.asyncio.sentinel.Sentinel):
    """The Sentinels, for one event loop.

    Attributes:
        primary: Where the primary was when they were last asked.
        moved: Is called when the primary is elsewhere.
    """

    primary: Address | None = None
    moved: Callable[[Address], None] | None = None
    _asking: asyncio.Task[Address] | None = None

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
        return self._asking

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
        """Give up a question that is on its way."""
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
