"""What happens in a queue, as it happens: the events that its transitions leave in a stream.

`QueueEvents` is for people; `EndListener` is how `job.result()` waits, one reader for all jobs of a
queue that are awaited in an event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from ._answers import ask, understood
from ._closing import Closing
from ._loops.patience import Patience
from .backoff import Duration, milliseconds
from .codec import loads, pairs
from .connection import Connection, Lane
from .errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    JobNotFoundError,
    ServerRefusedError,
    TorilError,
)
from .keys import QueueKeys, client_name

if TYPE_CHECKING:
    from .queue import Queue

__all__ = ["EndListener", "Event", "QueueEvents"]

_BLOCK_MS: Final = 10_000
_MOST_PER_READ: Final = 1_000
_Entries = list[tuple[str, list[str]]]
_ASK_AGAIN_AFTER: Final = 5.0
# Values of these fields are JSON in the stream.
_JSON_FIELDS: Final = {("progress", "data"), ("completed", "returnvalue")}

logger = logging.getLogger("toril.events")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a queue.

    Attributes:
        id: Its place in the stream; reading can go on from here.
        name: BullMQ's name: `added`, `waiting`, `active`, `completed`, `failed`, …
        fields: What else the event says, as text, under BullMQ's names.
    """

    id: str
    name: str
    fields: dict[str, str]

    @property
    def job_id(self) -> str | None:
        """The job that it is about."""
        return self.fields.get("jobId")

    @property
    def prev(self) -> str | None:
        """The state that the job came from, where the event says so."""
        return self.fields.get("prev")

    @property
    def value(self) -> Any:
        """The progress of a `progress` event, the return value of a `completed` one; else None.

        Raises:
            SerializationError: It is not JSON.
        """
        for name, field in _JSON_FIELDS:
            if name == self.name:
                return loads(self.fields.get(field, "null"), f"event {self.id}")
        return None

    @property
    def failed_reason(self) -> str | None:
        """Why the job of a `failed` event failed."""
        return self.fields.get("failedReason")


class QueueEvents(Closing):
    """The events of a queue, for `async for`, from whichever process they come.

    It survives a lost connection and goes on where it was.

    Args:
        queue: A name.
        connection: As for `Queue`.
        prefix: As for `Queue`.
        last_event_id: Where to begin: events after this one; `0` begins with the oldest that is kept.
            Without it, with what happens once `async with` has been entered.
        blocking_timeout: The longest that one reading waits for an event.

    Raises:
        ConfigurationError: The name, the prefix, the URL or the time cannot be.
    """

    def __init__(
        self,
        queue: str,
        *,
        connection: str | Connection | None = None,
        prefix: str = "bull",
        last_event_id: str | None = None,
        blocking_timeout: Duration = _BLOCK_MS / 1000,
    ) -> None:
        self.keys: QueueKeys = QueueKeys(prefix, queue)
        self.connection: Connection = Connection.of(connection)
        self.last_event_id: str | None = last_event_id
        self._block_ms = milliseconds(blocking_timeout, f"events of queue {queue!r}: blocking_timeout")
        if self._block_ms < 1:
            # Redis takes 0 for "as long as it takes", and a dead connection would never be noticed.
            raise ConfigurationError(f"events of queue {queue!r}: blocking_timeout must be positive")
        self._owns_connection = not isinstance(connection, Connection)
        self._lane: Lane | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Fix the place where reading begins. `async with` does it.

        Raises:
            TorilError: The server cannot be reached.
        """
        self._is_closed = False
        self._lane = self.connection.lane(name=client_name(self.keys, suffix=":qe"))
        if self.last_event_id is None:
            # A concrete place: with `$` what is written between two reads would be missed.
            newest = await ask(
                self._lane, _Entries, "XREVRANGE", self.keys.key("events"), "+", "-", "COUNT", 1
            )
            self.last_event_id = newest[0][0] if newest else "0-0"

    async def read(self, block_ms: int | None = None) -> list[Event]:
        """Return the next events, after waiting for them for at most `block_ms`; without it `blocking_timeout`.

        May be empty.

        Raises:
            TorilError: The connection broke; the place is kept.
        """
        if self._lane is None:
            await self.open()
        assert self._lane is not None
        block_ms = self._block_ms if block_ms is None else block_ms
        answer = await self._lane.execute(
            "XREAD",
            "COUNT",
            _MOST_PER_READ,
            "BLOCK",
            block_ms,
            "STREAMS",
            self.keys.key("events"),
            self.last_event_id,
            timeout=block_ms / 1000 + 2,
        )
        events: list[Event] = []
        streams = understood(
            list[tuple[str, _Entries]], answer or [], f"queue {self.keys.queue!r}: reading events"
        )
        for _, entries in streams:
            for event_id, fields in entries:
                named = pairs(fields)
                events.append(Event(event_id, named.pop("event", ""), named))
                self.last_event_id = event_id
        return events

    async def __aiter__(self) -> AsyncIterator[Event]:
        patience = Patience(f"queue {self.keys.queue!r}: reading events", logger)
        while not self._is_closed:
            try:
                events = await self.read()
            except AuthenticationError:
                raise
            except TorilError as error:
                if self._is_closed:
                    return
                await asyncio.sleep(patience.failed(error))
                continue
            patience.worked()
            for event in events:
                # Whoever leaves the loop here goes on behind this one, not behind all that was read with it.
                self.last_event_id = event.id
                yield event

    async def close(self) -> None:
        """End the reading. A loop over the events ends."""
        self._is_closed = True
        if self._lane is not None:
            await self._lane.close()
        if self._owns_connection:
            await self.connection.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self


class EndListener:
    """Tells those who await jobs of a queue when these have ended.

    It reads the stream while anybody waits, and ends when nobody does.

    Args:
        queue: Whose jobs.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._events: QueueEvents | None = None
        self._reader: asyncio.Task[None] | None = None
        self._is_open = asyncio.Event()
        self._waiters: dict[str, set[asyncio.Future[tuple[Literal["completed", "failed"], str]]]] = {}

    async def wait(self, job_id: str) -> tuple[Literal["completed", "failed"], str]:
        """Wait until a job has ended; return how, and its return value as JSON or its failed reason.

        Raises:
            JobNotFoundError: There is no such job.
        """
        future: asyncio.Future[tuple[Literal["completed", "failed"], str]] = (
            asyncio.get_running_loop().create_future()
        )
        self._waiters.setdefault(job_id, set()).add(future)
        try:
            await self._listen()
            while True:
                # Listening first, then asking: an end in between is heard. Asking again now and then: an
                # event can be lost with a server, or trimmed before we came to it.
                with suppress(ConnectionLostError, ServerRefusedError):
                    await self._ask(job_id)
                await asyncio.wait((future,), timeout=_ASK_AGAIN_AFTER)
                if future.done():
                    return future.result()
        finally:
            waiters = self._waiters.get(job_id, set())
            waiters.discard(future)
            if not waiters:
                self._waiters.pop(job_id, None)
            if not self._waiters:
                await self.close()

    async def close(self) -> None:
        """Stop reading."""
        reader, self._reader = self._reader, None
        events, self._events = self._events, None
        try:
            if reader is not None:
                reader.cancel()
                # Not `await reader`: its cancellation could not be told from our own.
                await asyncio.wait((reader,))
        finally:
            if events is not None:
                await events.close()

    async def _listen(self) -> None:
        while self._reader is None:
            if self._events is not None:
                # Somebody else is opening it just now, and may be cancelled meanwhile.
                await self._is_open.wait()
                continue
            queue = self._queue
            events = self._events = QueueEvents(queue.name, connection=queue.connection, prefix=queue.prefix)
            self._is_open.clear()
            try:
                await events.open()
            except BaseException:
                if self._events is events:
                    self._events = None
                await events.close()
                raise
            finally:
                self._is_open.set()
            if self._events is events:
                self._reader = asyncio.get_running_loop().create_task(self._read(events))

    async def _read(self, events: QueueEvents) -> None:
        try:
            async for event in events:
                if event.job_id in self._waiters:
                    if event.name == "completed":
                        self._tell(event.job_id, "completed", event.fields.get("returnvalue", "null"))
                    elif event.name == "failed":
                        self._tell(event.job_id, "failed", event.failed_reason or "")
        except Exception as error:
            if self._events is events:
                # Whoever comes after those who wait needs another reader.
                self._reader = self._events = None
                for future in [future for waiters in self._waiters.values() for future in waiters]:
                    if not future.done():
                        future.set_exception(error)
            await events.close()

    async def _ask(self, job_id: str) -> None:
        state = await self._queue.get_job_state(job_id)
        job = await self._queue.get_job(job_id)
        if job is None:
            if not any(future.done() for future in self._waiters.get(job_id, ())):
                # Removed when it completed, and maybe its event is on its way to us.
                await asyncio.sleep(0.1)
            for future in self._waiters.get(job_id, ()):
                if not future.done():
                    future.set_exception(
                        JobNotFoundError(
                            job_id,
                            "is gone; it was removed before it was awaited, or never was; "
                            "remove_on_complete=KeepJobs(age=60) keeps such jobs for a minute",
                            self._queue.name,
                        )
                    )
        elif state == "completed":
            self._tell(job_id, "completed", job.return_value_json or "null")
        elif state == "failed":
            self._tell(job_id, "failed", job.failed_reason or "")

    def _tell(self, job_id: str, state: Literal["completed", "failed"], text: str) -> None:
        for future in self._waiters.get(job_id, ()):
            if not future.done():
                future.set_result((state, text))
