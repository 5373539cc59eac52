"""A queue as its producers and operators see it: add jobs, look at them, pause and resume.

It runs nothing; see `worker`. Every change of a job's state is a script, see `scripts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack, cast
from weakref import WeakKeyDictionary

from ._batching import Batcher
from .backoff import Duration
from .clock import Clock
from .codec import dumps
from .connection import Connection
from .errors import ConfigurationError, ConnectionLostError, JobNotFoundError, SerializationError, refusal
from .job import Job
from .keys import QueueKeys, client_name
from .options import JobOptions, PreparedOptions, prepare
from .processor import Decorator, Processor
from .scripts import NewRecord, Scripts
from .states import KEY_OF_STATE, LIST_STATES, STATES, State

if TYPE_CHECKING:
    from .queue_events import EndListener
    from .sync import SyncQueue

__all__ = ["JobLogs", "NewJob", "Queue", "find_queues"]

R = TypeVar("R")

# The most jobs that one call adds; a longer list is cut, so that no call holds up the server.
_MOST_PER_CALL: Final = 500


@dataclass(frozen=True, slots=True)
class NewJob:
    """A member of `add_bulk`.

    Attributes:
        name: Chooses the processor.
        data: Any JSON.
        options: As the keywords of `add`.
    """

    name: str
    data: Any = None
    options: JobOptions = field(default_factory=lambda: JobOptions())


@dataclass(frozen=True, slots=True)
class JobLogs:
    """A page of a job's log.

    Attributes:
        logs: The rows.
        count: How many the job has in all.
    """

    logs: list[str]
    count: int


class Queue:
    """A queue by name. Making one costs nothing; the connection opens with the first call.

    One object serves any number of event loops, one after another or in several threads.

    Args:
        name: Without `:`.
        connection: A URL or a `Connection` that is shared; without it `TORIL_URL`, else `redis://localhost:6379`.
        prefix: What all keys begin with. On a cluster it holds a hash tag, e.g. `{bull}`.
        default_job_options: For options that `add` is not given.
        clock: What time it is; without it the server's.

    Raises:
        ConfigurationError: The name, the prefix, the URL or a default option cannot be.
    """

    def __init__(
        self,
        name: str,
        *,
        connection: str | Connection | None = None,
        prefix: str = "bull",
        default_job_options: JobOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.keys: QueueKeys = QueueKeys(prefix, name)
        self.connection: Connection = Connection.of(connection)
        self.default_job_options: Mapping[str, Any] = dict(default_job_options or {})
        self._defaults = prepare({}, self.default_job_options)
        if self._defaults.job_id:
            raise ConfigurationError(f"queue {name!r}: job_id cannot be a default, since it names one job")
        self.clock: Clock = clock or self.connection.clock
        self.scripts: Scripts = Scripts(self.keys, self.connection)
        self.processors: dict[str, Processor[..., Any]] = {}
        self._owns_connection = not isinstance(connection, Connection)
        self._adders: WeakKeyDictionary[asyncio.AbstractEventLoop, Batcher[NewRecord, str | int]] = (
            WeakKeyDictionary()
        )
        self._listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, EndListener] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """The name that producers and workers share."""
        return self.keys.queue

    @property
    def prefix(self) -> str:
        """What all keys begin with."""
        return self.keys.prefix

    @property
    def qualified_name(self) -> str:
        """`<prefix>:<name>`."""
        return self.keys.qualified_name

    def __repr__(self) -> str:
        return f"<Queue {self.qualified_name!r} at {self.connection.safe_url}>"

    @cached_property
    def sync(self) -> SyncQueue:
        """The same verbs without asyncio, for scripts and web frameworks that block."""
        from .sync import SyncQueue

        return SyncQueue(self)

    # Adding

    async def add(self, name: str, data: Any = None, /, **options: Unpack[JobOptions]) -> Job[Any]:
        """Add a job. When this returns, the server has it.

        Args:
            name: Chooses the processor.
            data: Any JSON; None is an empty object.
            options: See `JobOptions`.

        Raises:
            ConfigurationError: An option or the name cannot be.
            SerializationError: The data is not JSON, or larger than `size_limit`.
            ServerUnreachableError: No connection; nothing was added.
            ConnectionLostError: No answer; the job may or may not have been added. With a `job_id` it is safe
                to repeat.
            ServerRefusedError: The server cannot store it.
        """
        return await self.add_stored(name, dumps({} if data is None else data), self._prepare(options))

    async def add_bulk(
        self, jobs: Iterable[NewJob | tuple[str, Any] | tuple[str, Any, JobOptions]]
    ) -> list[Job[Any]]:
        """Add many jobs, in order, in one call per 500.

        All are checked before the first is added.

        Args:
            jobs: `NewJob`, or tuples (name, data) or (name, data, options).

        Raises:
            As `add`; of a list of more than 500, calls before the failed one have added their jobs.
        """
        members = [job if isinstance(job, NewJob) else _new_job(*job) for job in jobs]
        await self.connection.learn_time()
        records: list[NewRecord] = []
        for index, job in enumerate(members):
            try:
                data = dumps({} if job.data is None else job.data)
                records.append(self._record(job.name, data, self._prepare(job.options)))
            except (ConfigurationError, SerializationError) as error:
                raise type(error)(f"job {index} of the list: {error}") from None
        added: list[Job[Any]] = []
        for start in range(0, len(records), _MOST_PER_CALL):
            some = records[start : start + _MOST_PER_CALL]
            added += map(self._added, await self._send(some), some)
        return added

    async def add_stored(
        self, name: str, data: str, options: PreparedOptions, returns: Callable[[Any], Any] | None = None
    ) -> Job[Any]:
        """Add a job whose data is JSON text already and whose options have been checked. Typed jobs come this way."""
        loop = asyncio.get_running_loop()
        adder = self._adders.get(loop)
        if adder is None:
            # A job's timestamp is the server's time, so that comes first.
            await self.connection.learn_time()
            adder = self._adders.setdefault(loop, Batcher(self._send, _MOST_PER_CALL))
        record = self._record(name, data, options)
        return self._added(await adder.submit(record), record, returns)

    def _prepare(self, options: Mapping[str, Any]) -> PreparedOptions:
        if not options:
            return self._defaults
        try:
            return prepare(options, self.default_job_options)
        except ConfigurationError as error:
            raise ConfigurationError(f"queue {self.name!r}: {error}") from None

    def _record(self, name: str, data: str, options: PreparedOptions) -> NewRecord:
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"queue {self.name!r}: a job's name is text and not empty")
        if options.size_limit is not None and len(data.encode()) > options.size_limit:
            raise SerializationError(
                f"queue {self.name!r}: data of job {name!r} is larger than its size_limit of "
                f"{options.size_limit} bytes; store it elsewhere and pass its key"
            )
        timestamp = self.clock.now_ms() if options.timestamp is None else options.timestamp
        return NewRecord(
            options.job_id,
            name,
            data,
            options.stored,
            timestamp,
            options.delay_ms,
            options.priority,
            options.lifo,
        )

    async def _send(self, records: Sequence[NewRecord]) -> list[str | int]:
        try:
            return await self.scripts.add_job(records)
        except ConnectionLostError as error:
            if all(record.job_id for record in records):
                # An id that is taken adds nothing, so a second try is harmless.
                return await self.scripts.add_job(records)
            raise type(error)(
                f"queue {self.name!r}: {error}; pass a job_id to make adding safe to repeat"
            ) from error

    def _added(
        self, job_id: str | int, record: NewRecord, returns: Callable[[Any], Any] | None = None
    ) -> Job[Any]:
        if isinstance(job_id, int):
            raise refusal(job_id, record.job_id or record.name)
        fields = {
            "name": record.name,
            "data": record.data,
            "opts": record.options,
            "timestamp": str(record.timestamp),
            "delay": str(record.delay_ms),
            "priority": str(record.priority),
        }
        return Job(self, job_id, fields, returns=returns)

    # Typed processors

    def processor(
        self, name: str | None = None, /, *, timeout: Duration | None = None, **options: Unpack[JobOptions]
    ) -> Decorator:
        """Make a function the processor of jobs of this name, and their typed front door.

        Args:
            name: Of the jobs; without it the function's, with `-` for `_`.
            timeout: How long an attempt may take; it fails after that. For `async def` only.
            options: Defaults for its jobs, see `JobOptions`.

        Raises:
            ConfigurationError: The name is taken, or a parameter cannot come from JSON.
        """
        return Decorator(self, name, timeout, {**options})

    # Looking

    async def get_job(self, job_id: str) -> Job[Any] | None:
        """Return a job, or None where there is none of this id."""
        record = _pairs(await self.connection.execute("HGETALL", self.keys.job(job_id)))
        return Job(self, job_id, record) if record else None

    async def get_job_or_raise(self, job_id: str) -> Job[Any]:
        """Return a job.

        Raises:
            JobNotFoundError: There is none of this id.
        """
        job = await self.get_job(job_id)
        if job is None:
            raise JobNotFoundError(job_id, f"not found in queue {self.qualified_name!r}")
        return job

    async def get_job_state(self, job_id: str) -> State:
        """Return the state of a job; `unknown` where there is none of this id."""
        return cast("State", await self.scripts.get_state(job_id))

    async def get_job_counts(self, *states: State) -> dict[State, int]:
        """Return how many jobs there are in each of these states; without any, in all of them."""
        wanted = _checked(states or STATES)
        commands = [
            ("LLEN" if state in LIST_STATES else "ZCARD", self.keys.key(KEY_OF_STATE[state]))
            for state in wanted
        ]
        # Together, so that no job is counted twice while it moves.
        *_, counts = await self.connection.execute_all([("MULTI",), *commands, ("EXEC",)])
        return dict(zip(wanted, counts, strict=True))

    async def get_ids(
        self, state: State, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[str]:
        """Return ids of a state's jobs.

        Args:
            state: Which.
            start: The first position, from 0.
            end: The last position, included; -1 is the very last.
            ascending: The oldest, or the next to run, first; else the newest.
        """
        (checked,) = _checked((state,))
        key = self.keys.key(KEY_OF_STATE[checked])
        execute = self.connection.execute
        if checked not in LIST_STATES:
            ids: list[str] = await execute("ZRANGE" if ascending else "ZREVRANGE", key, start, end)
        elif ascending:
            # The oldest is at the right end.
            ids = (await execute("LRANGE", key, -(end + 1), -(start + 1)))[::-1]
        else:
            ids = await execute("LRANGE", key, start, end)
        return ids

    async def get_jobs(
        self,
        states: State | Iterable[State] | None = None,
        start: int = 0,
        end: int = -1,
        *,
        ascending: bool = False,
    ) -> list[Job[Any]]:
        """Return jobs of one or several states, one after another; see `get_ids` for the positions."""
        wanted = _checked((states,) if isinstance(states, str) else tuple(states or STATES))
        ids: dict[str, None] = {}
        for state in wanted:
            ids.update(dict.fromkeys(await self.get_ids(state, start, end, ascending=ascending)))
        if not ids:
            return []
        records = await self.connection.execute_all([("HGETALL", self.keys.job(job_id)) for job_id in ids])
        return [
            Job(self, job_id, _pairs(record)) for job_id, record in zip(ids, records, strict=True) if record
        ]

    async def get_waiting(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that wait for a worker, without a priority."""
        return await self.get_jobs("waiting", start, end, ascending=ascending)

    async def get_prioritized(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[Job[Any]]:
        """Return jobs that wait for a worker, with a priority."""
        return await self.get_jobs("prioritized", start, end, ascending=ascending)

    async def get_delayed(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that wait for their time."""
        return await self.get_jobs("delayed", start, end, ascending=ascending)

    async def get_active(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that are running."""
        return await self.get_jobs("active", start, end, ascending=ascending)

    async def get_completed(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[Job[Any]]:
        """Return jobs that have completed and are kept."""
        return await self.get_jobs("completed", start, end, ascending=ascending)

    async def get_failed(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that have failed for good and are kept."""
        return await self.get_jobs("failed", start, end, ascending=ascending)

    async def get_job_logs(
        self, job_id: str, start: int = 0, end: int = -1, *, ascending: bool = True
    ) -> JobLogs:
        """Return rows of a job's log, the oldest first unless `ascending` is False."""
        key = self.keys.job(job_id) + ":logs"
        first, last = (start, end) if ascending else (-(end + 1), -(start + 1))
        commands = [("LRANGE", key, first, last), ("LLEN", key)]
        *_, (rows, count) = await self.connection.execute_all([("MULTI",), *commands, ("EXEC",)])
        return JobLogs(rows if ascending else rows[::-1], count)

    async def get_workers(self) -> list[dict[str, str]]:
        """Return the connections of this queue's workers, Node's among them, as CLIENT LIST shows them."""
        wanted = client_name(self.keys)
        listed: str = await self.connection.execute("CLIENT", "LIST")
        clients = [
            {name: value for name, _, value in (field.partition("=") for field in line.split(" "))}
            for line in listed.splitlines()
        ]
        return [
            client
            for client in clients
            if client["name"] == wanted or client["name"].startswith(f"{wanted}:w:")
        ]

    # Opening and closing

    async def pause(self) -> None:
        """Let no worker fetch from this queue until `resume`. Running jobs go on, jobs can be added."""
        await self.scripts.pause("pause")

    async def resume(self) -> None:
        """Let workers fetch again."""
        left = await self.scripts.pause("resume")
        while left > 0:
            left = await self.scripts.pause("continue")

    async def is_paused(self) -> bool:
        """Whether the queue is paused."""
        return bool(await self.connection.execute("HEXISTS", self.keys.key("meta"), "paused"))

    async def wait_for_end(
        self, job_id: str, timeout: float | None
    ) -> tuple[Literal["completed", "failed"], str]:
        """Wait until a job has ended; return how, and its return value as JSON or its failed reason.

        Raises:
            JobNotFoundError: There is no such job.
            TimeoutError: It has not ended within `timeout` seconds.
        """
        from .queue_events import EndListener

        loop = asyncio.get_running_loop()
        listener = self._listeners.get(loop)
        if listener is None:
            listener = self._listeners[loop] = EndListener(self)
        try:
            async with asyncio.timeout(timeout):
                return await listener.wait(job_id)
        except TimeoutError:
            raise TimeoutError(
                f"job {job_id!r} in queue {self.name!r} has not ended after {timeout} s"
            ) from None

    async def close(self) -> None:
        """Wait for adds that are on their way, and close what this event loop has opened. Safe to call twice."""
        loop = asyncio.get_running_loop()
        listener = self._listeners.pop(loop, None)
        if listener is not None:
            await listener.close()
        adder = self._adders.pop(loop, None)
        if adder is not None:
            await adder.drain()
        if self._owns_connection:
            await self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def find_queues(connection: str | Connection | None = None, prefix: str = "bull") -> list[str]:
    """Return the names of the queues under a prefix, sorted. It scans the server's keys in small steps."""
    server = Connection.of(connection)
    names: set[str] = set()
    pattern = "".join(f"[{character}]" if character in "*?[]\\" else character for character in prefix)
    cursor: str | int = 0
    try:
        while True:
            cursor, keys = await server.execute(
                "SCAN", cursor, "MATCH", f"{pattern}:*:meta", "COUNT", 500, "TYPE", "hash"
            )
            found = (key[len(prefix) + 1 : -len(":meta")] for key in cast("list[str]", keys))
            names.update(name for name in found if ":" not in name)
            if int(cursor) == 0:
                break
    finally:
        if server is not connection:
            await server.close()
    return sorted(names)


def _new_job(name: Any, data: Any = None, options: Any = None) -> NewJob:
    return NewJob(name, data, options or JobOptions())


def _pairs(flat: list[str]) -> dict[str, str]:
    fields = iter(flat)
    return dict(zip(fields, fields, strict=True))


def _checked(states: Sequence[State]) -> Sequence[State]:
    for state in states:
        if state not in KEY_OF_STATE:
            raise ConfigurationError(f"unknown state {state!r}; there are {', '.join(STATES)}")
    return states
