"""Looking for jobs of workers that have fallen silent, again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..errors import TorilError
from .claims import Settings
from .patience import Patience

__all__ = ["look_for_stalled"]

# What takes longer than this by so much was held up: the event loop, the network or the server.
_LATE: Final = 0.5
_LONGEST_MERCY: Final = 5.0
_MOST_MERCIES: Final = 3


async def look_for_stalled(
    queue: str,
    settings: Settings,
    ping: Callable[[], Awaitable[object]],
    check: Callable[[], Awaitable[object]],
) -> None:
    """Make the check in each interval, for ever.

    After anything that has held us up or cut us off, the check is put off a little: the same may have befallen whoever
    holds jobs, ourselves among them, and they have to take their locks again before somebody takes the jobs.

    Args:
        queue: Its name, for the log.
        settings: The worker's.
        ping: Asks the server for next to nothing. A check that is sent to a silent server would be the first that it
            does when it wakes, so none is.
        check: Makes the check.
    """
    patience = Patience(f"queue {queue!r}: stalled check")
    interval = settings.stalled_ms / 1000
    mercy = min(settings.lock_ms / 2000, _LONGEST_MERCY)
    was_held_up, mercies = False, 0
    while True:
        began, wait = time.monotonic(), interval
        try:
            await ping()
            was_held_up |= time.monotonic() - began > _LATE
            # Not for ever: where we are held up again and again, jobs of the dead are to come back all the same.
            if was_held_up and mercies < _MOST_MERCIES:
                was_held_up, mercies, wait = False, mercies + 1, mercy
            else:
                await check()
                was_held_up, mercies = False, 0
        except TorilError as error:
            was_held_up, wait = True, min(interval, patience.failed(error))
        else:
            patience.worked()
        began = time.monotonic()
        await asyncio.sleep(wait)
        was_held_up |= time.monotonic() - began - wait > _LATE
