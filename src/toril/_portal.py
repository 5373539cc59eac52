"""A thread with an event loop, for those who have none.

It is started by the first call, also anew in a forked child, and ends with the process.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import ConfigurationError

__all__ = ["run"]

T = TypeVar("T")


class _Portal:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="toril-sync", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C, or what a signal's handler has raised; where the call itself raised, it is over anyway.
            future.cancel()
            raise


_portal: _Portal | None = None
_portal_lock = threading.Lock()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from a thread that has no event loop.

    Raises:
        ConfigurationError: This thread runs an event loop, which the call would block.
    """
    global _portal
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        work.close()
        raise ConfigurationError(
            ".sync blocks the event loop that is running here; await the same call without .sync"
        )
    with _portal_lock:
        if _portal is None or _portal.pid != os.getpid():
            _portal = _Portal()
        portal = _portal
    return portal.run(work)


def _after_fork() -> None:
    # A lock that another thread held at the fork would never be released in the child.
    global _portal_lock, _portal
    _portal_lock = threading.Lock()
    _portal = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
