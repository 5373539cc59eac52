"""What one event loop has opened of a `Connection`: its client, idle connections, and who may use one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import redis.asyncio

from ._sentinels import Address, sentinels_of

if TYPE_CHECKING:
    from .connection import Lane

__all__ = ["MOST_LANES", "LoopClients"]

MOST_LANES: Final = 32
"""Calls that are made at once beyond this number wait for a free connection."""


class LoopClients:
    """What one event loop has opened, of one `Connection`."""

    __slots__ = (
        *("_answered", "_taken", "_waiting", "asking", "client", "idle", "is_closed", "knows_time", "lanes"),
        *("learning", "sentinels"),
    )

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        # Of a primary that Sentinels know, all that there are: when it has moved, they have to leave the old one.
        self.lanes: WeakSet[Lane] = WeakSet()
        self.sentinels = sentinels_of(client)
        if self.sentinels is not None:
            self.sentinels.moved = self.moved
        self.idle: list[Lane] = []
        self.is_closed = False
        self.knows_time = False
        self.learning: asyncio.Task[None] | None = None
        self.asking: dict[tuple[Any, ...], asyncio.Task[Any]] = {}
        self._taken = 0
        # When somebody who gave way to another had an answer.
        self._answered = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def moved(self, primary: Address) -> None:
        """Give up what is connected to the old primary, which may never answer."""
        for lane in list(self.lanes):
            lane.leave_for(primary)

    def look(self) -> None:
        """Ask the Sentinels, if there are any: somebody has met a fault."""
        if self.sentinels is not None and not self.is_closed:
            pool: Any = self.client.connection_pool
            self.sentinels.ask(pool.service_name)

    def take_now(self) -> bool:
        """Take the right to use a connection, if one is free."""
        if self._taken >= MOST_LANES:
            return False
        self._taken += 1
        return True

    async def take(self, patience: float) -> None:
        """Wait for the right to use a connection.

        Raises:
            TimeoutError: All have been busy for so many seconds, and no call on them had an answer meanwhile.
        """
        if self.take_now():
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        since = loop.time()
        try:
            while not turn.done():
                # Behind many others it is a long wait, and no fault, as long as they get what they want.
                left = max(since, self._answered) + patience - loop.time()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait((turn,), timeout=left)
        except BaseException:
            if not turn.done():
                turn.cancel()
            else:
                # It came, and we are not here any more to use it.
                self.release(was_answered=False)
            raise

    def release(self, *, was_answered: bool) -> None:
        """Give the right to the next.

        Args:
            was_answered: The server has been heard meanwhile.
        """
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                if was_answered:
                    self._answered = asyncio.get_running_loop().time()
                turn.set_result(None)
                return
        self._taken -= 1
