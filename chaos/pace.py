"""The pace of a producer: so many adds a second, however long each of them takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["at_rate"]


async def at_rate(
    add: Callable[[int], Awaitable[None]], rate: float, is_over: asyncio.Event, *, least: int, in_flight: int
) -> int:
    """Call `add` with 1, 2, 3, … until it is over and there are enough; return how many there were.

    Args:
        add: Adds what has this number.
        rate: How many a second.
        is_over: Set when there are to be no more.
        least: How many there are at least.
        in_flight: How many are on their way at once, at most.
    """
    limit = asyncio.Semaphore(in_flight)

    async def one(number: int) -> None:
        try:
            await add(number)
        finally:
            limit.release()

    now = asyncio.get_running_loop().time
    began, number = now(), 0
    async with asyncio.TaskGroup() as group:
        while not is_over.is_set() or number < least:
            number += 1
            wait = began + number / rate - now()
            if wait > 0:
                await asyncio.sleep(wait)
            await limit.acquire()
            group.create_task(one(number))
    return number
