"""What time it is, by the server's clock.

Every client of a queue stamps and compares times of its own. Two hosts whose clocks differ would run
delayed jobs early or late, so all of toril's times are the server's: the offset to it is measured
when a connection is made, and again by the worker's heartbeat. In between a clock is read that nobody sets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

__all__ = ["Clock", "ServerClock"]


class Clock(Protocol):
    """Anything that tells the time; tests hand in one that they turn."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        ...


# Of the clocks that nobody sets the one that goes on while a machine sleeps, where there is one.
_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
_steady: Callable[[], float] = time.monotonic if _CLOCK is None else partial(time.clock_gettime, _CLOCK)


class ServerClock:
    """A steady clock, corrected by the measured offset to the server's.

    Whoever sets the clock of the machine meanwhile, by hand or over the network, changes nothing.
    """

    __slots__ = ("_ahead_ms", "offset_ms")

    def __init__(self) -> None:
        self.offset_ms: float = 0.0
        """How far the server's clock was ahead of ours when it was measured; negative when it was behind."""
        self._ahead_ms: float | None = None
        """How far it is ahead of the steady clock; None until it has been measured."""

    def now_ms(self) -> int:
        """Return the server's time in whole milliseconds."""
        if self._ahead_ms is None:
            return int(time.time() * 1000)
        return int(_steady() * 1000 + self._ahead_ms)

    def learn(self, asked: float, answered: float, seconds: int, microseconds: int) -> None:
        """Take in one answer of TIME.

        The server read its clock somewhere between our question and its answer; the middle errs by at
        most half the round trip.

        Args:
            asked: Local `time.time()` before the question.
            answered: Local `time.time()` after the answer.
            seconds: The first part of the answer.
            microseconds: The second part.
        """
        server = seconds + microseconds / 1e6
        offset_ms = (server - (asked + answered) / 2) * 1000
        # Below the precision of the measurement a correction would only add jitter between processes.
        self.offset_ms = offset_ms if abs(offset_ms) > max(1.0, (answered - asked) * 500) else 0.0
        self._ahead_ms = (time.time() - _steady()) * 1000 + self.offset_ms
