"""What one event loop has opened of a `Connection`: its client, idle connections, and who may use one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import redis.asyncio
from redis.exceptions import TimeoutError as RedisTimeoutError

from ._sentinels import Address, sentinels_of

if TYPE_CHECKING:
    from .connection import Lane

__all__ = ["MOST_IDLE", "MOST_LANES", "MOST_OPENING", "LoopClients", "Turns", "in_turn"]

MOST_LANES: Final = 32
"""Calls that are made at once beyond this number wait for a free connection."""
MOST_IDLE: Final = 8
"""Idle connections beyond this number are closed once nobody has needed them for a while."""


MOST_OPENING: Final = 32
"""So many connections of workers are opened at once: each of thousands would take longer than it may."""


class Turns:
    """Lets so many do something at once; the others stand in line.

    Args:
        most: How many.
    """

    __slots__ = ("_answered", "_most", "_taken", "_waiting")

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        # When somebody who gave way to another had an answer.
        self._answered = 0.0

    def take_now(self) -> bool:
        """Take a turn, if one is free."""
        if self._taken >= self._most:
            return False
        self._taken += 1
        return True

    async def take(self, patience: float) -> None:
        """Wait for a turn.

        Raises:
            TimeoutError: None has been free for so many seconds, and nobody who had one has heard from the server.
        """
        if self.take_now():
            return
        turn = self.join()
        loop = turn.get_loop()
        since = loop.time()
        try:
            while not turn.done():
                # Behind many others it is a long wait, and no fault, as long as they get what they want.
                left = max(since, self._answered) + patience - loop.time()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait((turn,), timeout=left)
        except BaseException:
            self.leave(turn)
            raise

    def join(self) -> asyncio.Future[None]:
        """Stand in line; what is returned is done when it is one's turn, and goes back to `leave` in any case."""
        turn = asyncio.get_running_loop().create_future()
        if self.take_now():
            turn.set_result(None)
        else:
            self._waiting.append(turn)
        return turn

    def leave(self, turn: asyncio.Future[None]) -> None:
        """Have no turn any more, or do not wait for it any longer."""
        if turn.done():
            self.release(was_answered=False)
        else:
            turn.cancel()

    def release(self, *, was_answered: bool) -> None:
        """Give a turn to the next.

        Args:
            was_answered: The server has been heard meanwhile.
        """
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                if was_answered:
                    self._answered = turn.get_loop().time()
                turn.set_result(None)
                return
        self._taken -= 1


async def in_turn(turn: asyncio.Future[None], closed: asyncio.Future[None], patience: float) -> None:
    """Wait for a turn to open a connection, or until that is not wanted any more.

    Raises:
        RedisTimeoutError: Neither comes. Behind thousands who reach nobody one would wait for minutes, and say nothing.
    """
    await asyncio.wait((turn, closed), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    if not (turn.done() or closed.done()):
        raise RedisTimeoutError(f"{MOST_OPENING} others have been connecting for {patience:g} s")


class LoopClients:
    """What one event loop has opened, of one `Connection`."""

    __slots__ = (
        *(
            "asking",
            "client",
            "idle",
            "is_closed",
            "knows_time",
            "lanes",
            "learning",
            "openings",
            "sentinels",
        ),
        "turns",
    )

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        # Of a primary that Sentinels know, all that there are: when it has moved, they have to leave the old one.
        self.lanes: WeakSet[Lane] = WeakSet()
        self.sentinels = sentinels_of(client)
        if self.sentinels is not None:
            self.sentinels.moved = self.moved
            self.sentinels.is_wanted = lambda: bool(self.lanes)
        self.idle: list[Lane] = []
        self.is_closed = False
        self.knows_time = False
        self.learning: asyncio.Task[None] | None = None
        self.asking: dict[tuple[Any, ...], asyncio.Task[Any]] = {}
        self.turns = Turns(MOST_LANES)
        self.openings = Turns(MOST_OPENING)

    def moved(self, primary: Address) -> None:
        """Give up what is connected to the old primary, which may never answer."""
        for lane in list(self.lanes):
            lane.leave_for(primary)

    def look(self) -> None:
        """Ask the Sentinels, if there are any: somebody has met a fault."""
        if self.sentinels is not None and not self.is_closed:
            pool: Any = self.client.connection_pool
            self.sentinels.ask(pool.service_name)

    def thin(self) -> None:
        """Close idle connections that a burst has opened, and that nobody needs any more."""
        # The last that was given back is the first to be taken again, so the first in the list has been idle longest.
        while len(self.idle) > MOST_IDLE and self.idle[0].is_stale:
            self.idle.pop(0).abort()
