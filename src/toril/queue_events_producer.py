"""Events of one's own in a queue's stream, beside those that its transitions leave there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ._answers import ask
from ._closing import Closing
from .connection import Connection
from .errors import ConfigurationError
from .keys import QueueKeys

__all__ = ["QueueEventsProducer"]

# What listeners take for the word of a transition: `job.result()` would believe a `completed` of anybody's.
_TAKEN: Final = frozenset(
    {
        "active",
        "added",
        "cleaned",
        "completed",
        "deduplicated",
        "delayed",
        "drained",
        "duplicated",
        "error",
        "failed",
        "paused",
        "progress",
        "removed",
        "resumed",
        "retries-exhausted",
        "stalled",
        "waiting",
        "waiting-children",
    }
)


class QueueEventsProducer(Closing):
    """Publishes events under names of one's own. `QueueEvents` hears them, in Python and in Node.

    Args:
        queue: A name.
        connection: As for `Queue`.
        prefix: As for `Queue`.
    """

    def __init__(
        self, queue: str, *, connection: str | Connection | None = None, prefix: str = "bull"
    ) -> None:
        self.keys: QueueKeys = QueueKeys(prefix, queue)
        self.connection: Connection = Connection.of(connection)
        self._owns_connection = not isinstance(connection, Connection)

    async def publish_event(
        self, event: str, fields: Mapping[str, str | int | float] | None = None, *, max_events: int = 1000
    ) -> str:
        """Append an event to the queue's stream; return its place there.

        Args:
            event: Its name; not one of BullMQ's own events.
            fields: What else it says. Listeners get all of it as text; put what is nested into JSON.
            max_events: About how many of the newest events the queue keeps, those of its transitions included.

        Raises:
            ConfigurationError: The name is taken or empty, or a field is neither text nor a number.
            ConnectionLostError: No answer; the event may or may not have been published.
        """
        where = f"queue {self.keys.queue!r}: event {event!r}"
        if not isinstance(event, str) or not event or event in _TAKEN:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{where}: an event of one's own has a name that BullMQ does not use")
        if max_events < 1:
            raise ConfigurationError(f"{where}: max_events must be at least 1; got {max_events}")
        parts: list[str | int | float] = []
        for name, value in (fields or {}).items():
            if name == "event" or not isinstance(value, (str, int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(
                    f"{where}: field {name!r} must be text or a number, and not be called 'event'"
                )
            parts += (name, str(value).lower() if isinstance(value, bool) else value)
        key = self.keys.key("events")
        add = ("XADD", key, "MAXLEN", "~", max_events, "*", "event", event, *parts)
        return await ask(self.connection, str, *add)

    async def close(self) -> None:
        """Close what this event loop has opened."""
        if self._owns_connection:
            await self.connection.close()
