"""The signals that end a program, for all workers of a process.

SIGTERM and SIGINT, and SIGHUP, which comes when the terminal has gone, let running jobs end; SIGQUIT lets none.

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

__all__ = ["heard", "is_urgent"]

# Windows has the first two.
_NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
_SIGNALS: Final = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]

Hearer = Callable[[signal.Signals], None]

# Only the main thread hears signals, and it runs one event loop at a time.
_hearers: list[Hearer] = []
_undo = ExitStack()


@contextmanager
def heard(hearer: Hearer) -> Generator[None]:
    """Call a function at each of these signals, on the running event loop, for the time of a block.

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


def is_urgent(number: signal.Signals) -> bool:
    """Whether this signal asks for an end at once."""
    return number.name == "SIGQUIT"


def _install(loop: asyncio.AbstractEventLoop) -> None:
    for number in _SIGNALS:
        if number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
            # `nohup`: it is to outlive its terminal.
            continue
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
