"""SIGTERM and SIGINT, for all workers of a process.

An event loop has one handler per signal, so the workers that run on it share one: a signal that only
the last of them heard would leave the others running for ever.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Final

__all__ = ["heard"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Hearer = Callable[[signal.Signals], None]

# Only the main thread hears signals, and it runs one event loop at a time.
_hearers: list[Hearer] = []
_undo = ExitStack()


@contextmanager
def heard(hearer: Hearer) -> Generator[None]:
    """Call a function at each SIGTERM and SIGINT, on the running event loop, for the time of a block.

    In another thread than the main one it is never called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _hearers:
        _install(asyncio.get_running_loop())
    _hearers.append(hearer)
    try:
        yield
    finally:
        _hearers.remove(hearer)
        if not _hearers:
            _undo.close()


def _install(loop: asyncio.AbstractEventLoop) -> None:
    for number in _SIGNALS:
        try:
            loop.add_signal_handler(number, _received, number)
            _undo.callback(loop.remove_signal_handler, number)
        except NotImplementedError:
            # Windows: the handler runs in the main thread, between two steps of the loop.
            before = signal.signal(number, lambda got, _: loop.call_soon_threadsafe(_received, got))
            _undo.callback(signal.signal, number, before)


def _received(number: int) -> None:
    for hearer in list(_hearers):
        hearer(signal.Signals(number))
