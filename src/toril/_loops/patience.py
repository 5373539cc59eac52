"""Trying again after a fault: how long to wait, and how much to say about it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

__all__ = ["Patience", "supervise"]

_SHORTEST: Final = 0.05
_LONGEST: Final = 2.0

logger = logging.getLogger("toril.worker")


class Patience:
    """Waits that double from 50 ms to 2 s, with jitter so that a fleet does not return in step.

    The first fault is logged, and the recovery; what lies between is counted.

    Args:
        what: What is being tried, with the name of its queue.
        log: Without it the worker's.
    """

    def __init__(self, what: str, log: logging.Logger | None = None) -> None:
        self._what = what
        self._log = log or logger
        self.failures: int = 0
        """Since it worked last."""
        self.turns: int = 0
        """How many tries have had an outcome, good or bad."""

    def failed(self, error: BaseException) -> float:
        """Note a fault; return how many seconds to wait."""
        self.turns += 1
        self.failures += 1
        if self.failures == 1:
            self._log.warning("%s: %s; trying again", self._what, error)
        return min(_SHORTEST * 2.0 ** min(self.failures, 10), _LONGEST) * random.uniform(0.5, 1)

    def worked(self) -> None:
        """Note that it works."""
        self.turns += 1
        if self.failures:
            self._log.warning("%s: works again after %d failed tries", self._what, self.failures)
            self.failures = 0


async def supervise(
    queue: str, name: str, loop: Callable[[], Coroutine[Any, Any, None]], tell: Callable[..., None]
) -> None:
    """Keep a loop of a worker going. What it does not expect is logged, and it begins anew.

    Args:
        queue: The queue's name, for the log.
        name: What the loop does, likewise.
        loop: Runs it, until it has ended by itself.
        tell: Calls the worker's listeners: (event, *arguments).
    """
    patience = Patience(f"queue {queue!r}: {name}")
    while True:
        try:
            await loop()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            # Also what was cancelled under it, such as a question that others had asked too, and was not meant for it.
            logger.exception("queue %r: %s failed unexpectedly; it goes on", queue, name)
            tell("error", error)
            await asyncio.sleep(patience.failed(error))
        else:
            return
