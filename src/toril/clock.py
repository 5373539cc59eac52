"""What time it is, by the server's clock.

Every client of a queue stamps and compares times of its own. Two hosts whose clocks differ would run
delayed jobs early or late, so all of toril's times are the server's: the offset to it is measured
when a connection is made, and again by the worker's heartbeat.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ServerClock"]


class Clock(Protocol):
    """Anything that tells the time; tests hand in one that they turn."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        ...


class ServerClock:
    """The local clock, corrected by the measured offset to the server's."""

    __slots__ = ("offset_ms",)

    def __init__(self) -> None:
        self.offset_ms: float = 0.0
        """How far the server's clock is ahead of ours; negative when it is behind."""

    def now_ms(self) -> int:
        """Return the server's time in whole milliseconds."""
        return int(time.time() * 1000 + self.offset_ms)

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
