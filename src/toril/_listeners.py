"""A worker's listeners: what can be heard, and how it is told."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, TypeVar, get_args, overload

from .errors import ConfigurationError

__all__ = ["Listeners", "WorkerEvent"]

WorkerEvent = Literal[
    "ready",
    "active",
    "progress",
    "completed",
    "retried",
    "failed",
    "stalled",
    "lock_lost",
    "lock_renewal_failed",
    "locks_renewed",
    "drained",
    "paused",
    "resumed",
    "error",
    "closing",
    "closed",
]
"""What a worker tells its own listeners; `QueueEvents` has what happens in the queue as a whole."""

_EVENTS: Final = frozenset(get_args(WorkerEvent))

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("toril.worker")


class Listeners:
    """What wants to be told of a worker's events.

    Args:
        queue: The queue's name, for the log.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._listeners: dict[str, list[Callable[..., Any]]] = {}
        self._telling: set[asyncio.Task[Any]] = set()

    def __contains__(self, event: WorkerEvent) -> bool:
        """Whether anybody listens to an event."""
        return event in self._listeners

    @overload
    def on(self, event: WorkerEvent, listener: F) -> F: ...
    @overload
    def on(self, event: WorkerEvent) -> Callable[[F], F]: ...
    def on(self, event: WorkerEvent, listener: Callable[..., Any] | None = None) -> Any:
        """Add a listener; see `Worker.on`."""
        if event not in _EVENTS:
            raise ConfigurationError(
                f"a worker has no event {event!r}; there are {', '.join(sorted(_EVENTS))}"
            )
        if listener is None:

            def decorate(function: F) -> F:
                self._listeners.setdefault(event, []).append(function)
                return function

            return decorate
        self._listeners.setdefault(event, []).append(listener)
        return listener

    def tell(self, event: str, *args: Any) -> None:
        """Call the listeners of an event. What they raise is logged."""
        for listener in tuple(self._listeners.get(event, ())):
            try:
                answer = listener(*args)
            except (Exception, asyncio.CancelledError):
                # Nothing is awaited here, so it is not us who are cancelled, but what the listener has looked at.
                logger.exception("queue %r: a listener of %r raised", self._queue, event)
                continue
            if inspect.iscoroutine(answer):
                telling = asyncio.get_running_loop().create_task(self._hear_out(answer, event))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

    async def heard_out(self, seconds: float) -> None:
        """Wait until all have heard what they were told, but not for ever."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=seconds)

    async def _hear_out(self, answer: Coroutine[Any, Any, Any], event: str) -> None:
        try:
            await answer
        except Exception:
            logger.exception("queue %r: a listener of %r raised", self._queue, event)
