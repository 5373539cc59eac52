"""Whether to wait for an answer awake.

A process that waits is put to sleep, and so is an idle processor. To wake both can take longer than a server next door
takes to answer: on a virtual machine that has nothing else to do, some 25 of 60 µs. Who keeps turning the event loop
until the answer is there has it at once.

Where the server is far away, or others want the processor, that gains nothing. So it is measured, not assumed: of
some calls the other way is tried, and the quicker one is taken.
"""

from __future__ import annotations

from typing import Final

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
    """What the calls of one connection have taken, awake and asleep."""

    __slots__ = ("_asleep", "_awake", "_calls")

    def __init__(self) -> None:
        self._awake = self._asleep = 0.0
        self._calls = 0

    def begin(self) -> bool:
        """Return whether to stay awake for a call that leaves now."""
        self._calls += 1
        pays = self._awake < self._asleep * _GAIN
        return pays != (self._calls % _TRIES == 2)

    def end(self, seconds: float, was_awake: bool) -> None:
        """Take note of how long its answer took."""
        seconds = min(seconds, _MOST)
        if was_awake:
            self._awake += (seconds - self._awake) * (_WEIGHT if self._awake else 1)
        else:
            self._asleep += (seconds - self._asleep) * (_WEIGHT if self._asleep else 1)
