"""Runs plain functions off the event loop, in threads that do not hold up the end of the process.

`concurrent.futures` joins its threads when Python ends, so a function that hangs would keep a worker
from ever stopping. These threads are daemons: what they still do then is lost, and their jobs have
been handed back.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Threads"]


class Threads:
    """As many threads as are needed at once, kept for later.

    Args:
        name: What they are called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0
        self._started = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function in a thread and return what it returns. Cancelling stops the waiting, not the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as error:
                # StopIteration cannot travel in a future.
                tell = (
                    RuntimeError(f"the function raised {error!r}")
                    if isinstance(error, StopIteration)
                    else error
                )
                self._post(loop, future, None, tell)
            else:
                self._post(loop, future, result, None)

        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._started += 1
                threading.Thread(
                    target=self._serve, name=f"{self._name}-{self._started}", daemon=True
                ).start()
        self._work.put(work)
        return await future

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            with self._lock:
                self._idle += 1

    @staticmethod
    def _post(
        loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        def settle() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            # The loop is closed; nobody waits any more.
            return
