"""Whether to wait for an answer awake.

A process that waits is put to sleep, and so is an idle processor. To wake both can take longer than a server next door
takes to answer: on a virtual machine that has nothing else to do, some 25 of 60 µs. Who keeps turning the event loop
until the answer is there has it at once.

Where the server is far away, or others want the processor, that gains nothing. So it is measured, not assumed: of
some calls the other way is tried, and the quicker one is taken.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ._per_loop import PerLoop

__all__ = ["LONGEST", "Vigil"]

LONGEST: Final = 200e-6
"""So many seconds are waited awake at most."""
# One of so many calls tries the other way.
_TRIES: Final = 32
# To stay awake has to be so much quicker.
_GAIN: Final = 0.85
# How much one call counts.
_WEIGHT: Final = 1 / 8
# What takes longer is work, or a block. How long says nothing about waking up.
_MOST: Final = 2 * LONGEST


class Vigil:
    """What the calls of an event loop have taken, awake and asleep; and who keeps it awake.

    All connections share one, so that thousands of them learn from each other, and do not keep it awake each.
    """

    __slots__ = ("_asleep", "_awake", "_calls", "_is_turning", "_loop", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._awake = self._asleep = 0.0
        self._calls = 0
        self._until = 0.0
        self._is_turning = False

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Vigil:
        """Return that of an event loop."""
        vigil = _vigils.get(loop)
        if vigil is None:
            vigil = _vigils[loop] = Vigil(loop)
        return vigil

    def is_worth_it(self) -> bool:
        """Return whether to stay awake for a call that leaves now."""
        self._calls += 1
        pays = self._awake < self._asleep * _GAIN
        return pays != (self._calls % _TRIES == 2)

    def note(self, seconds: float, was_awake: bool) -> None:
        """Take note of how long an answer took."""
        if seconds > _MOST:
            return
        if was_awake:
            self._awake += (seconds - self._awake) * (_WEIGHT if self._awake else 1)
        else:
            self._asleep += (seconds - self._asleep) * (_WEIGHT if self._asleep else 1)

    def begin(self) -> None:
        """Stay awake for a while."""
        self._until = time.perf_counter() + LONGEST
        if not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def end(self) -> None:
        """Stay awake no longer."""
        self._until = 0.0

    def _turn(self) -> None:
        # As long as something is to be called, the event loop only looks whether there is news, and does not sleep.
        if time.perf_counter() < self._until:
            self._loop.call_soon(self._turn)
        else:
            self._is_turning = False


_vigils: PerLoop[Vigil] = PerLoop()
