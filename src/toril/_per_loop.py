"""What each event loop has of its own: connections, adders and listeners belong to the loop that made them."""

from __future__ import annotations

import asyncio
from typing import TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(WeakKeyDictionary[asyncio.AbstractEventLoop, T]):
    """By event loop. When another loop gets its own, what closed ones have left is let go.

    By itself none would go: what a loop has opened refers back to it.
    """

    def __setitem__(self, loop: asyncio.AbstractEventLoop, value: T) -> None:
        for other in [reference() for reference in self.keyrefs()]:
            if other is not None and other.is_closed():
                self.pop(other, None)
        super().__setitem__(loop, value)
