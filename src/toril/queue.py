"""A queue as its producers and operators see it: add jobs, look at them, pause and resume.

It runs nothing; see `worker`. Every change of a job's state is a script, see `scripts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack, cast
from weakref import WeakKeyDictionary

from ._adding import MOST_PER_CALL, Adder
from .backoff import Duration, milliseconds
from .clock import Clock
from .codec import MAX_SAFE_INTEGER, dumps, loads
from .connection import Connection
from .errors import (
    ConfigurationError,
    QueueNotEmptyError,
    SerializationError,
    refusal,
)
from .job import Job
from .job_scheduler import JobSchedulers
from .keys import QueueKeys
from .limits import DEFAULT_LIMITS, Limits, check_count, check_job_name, check_size
from .options import JobOptions, PreparedOptions, prepare
from .processor import Decorator, Processor
from .queue_getters import QueueGetters, checked_states
from .scripts import NewRecord, Scripts
from .states import KEY_OF_STATE, FinishedState, State

if TYPE_CHECKING:
    from .queue_events import EndListener
    from .sync import SyncQueue

__all__ = ["NewJob", "Queue", "find_queues"]

R = TypeVar("R")

# The most jobs that one step of a bulk verb looks at.
_MOST_PER_STEP: Final = 1_000
_MOST_PER_CLEAN: Final = 10_000
# Fields of a record that a script fills from the extras.
_LINKS: Final = {"parentKey": "parent_key", "parent": "parent"}


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


class Queue(QueueGetters, JobSchedulers):
    """A queue by name. Making one costs nothing; the connection opens with the first call.

    One object serves any number of event loops, one after another or in several threads.

    Args:
        name: Without `:`.
        connection: A URL or a `Connection` that is shared; without it `TORIL_URL`, else `redis://localhost:6379`.
        prefix: What all keys begin with. On a cluster it holds a hash tag, e.g. `{bull}`.
        default_job_options: For options that `add` is not given.
        clock: What time it is; without it the server's.
        limits: How large data, return values and the like may be, here and in workers of this queue.

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
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.limits: Limits = limits
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
        self._adders: WeakKeyDictionary[asyncio.AbstractEventLoop, Adder] = WeakKeyDictionary()
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
            SerializationError: The data is not JSON.
            TooLargeError: The data is larger than `size_limit`, or else than `Limits.data` (1 MiB).
            ServerUnreachableError: No connection; nothing was added.
            ConnectionLostError: No answer, although it was asked for some seconds whether the job has arrived; it may
                or may not have been added. With a `job_id` it is safe to repeat.
            ServerRefusedError: The server cannot store it now: it is full, read-only, or loading its data after a
                start. Nothing was added.
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
        check_count(len(members), self.limits.jobs, f"queue {self.name!r}: the list")
        adder = await self._adder()
        records: list[NewRecord] = []
        for index, job in enumerate(members):
            try:
                data = dumps({} if job.data is None else job.data)
                records.append(self._record(job.name, data, self._prepare(job.options)))
            except (ConfigurationError, SerializationError) as error:
                raise type(error)(f"job {index} of the list: {error}") from None
        added: list[Job[Any]] = []
        for start in range(0, len(records), MOST_PER_CALL):
            some = records[start : start + MOST_PER_CALL]
            added += map(self._added, await adder.add_all(some), some)
        return added

    async def add_stored(
        self, name: str, data: str, options: PreparedOptions, returns: Callable[[Any], Any] | None = None
    ) -> Job[Any]:
        """Add a job whose data is JSON text already and whose options have been checked. Typed jobs come this way."""
        adder = self._adders.get(asyncio.get_running_loop()) or await self._adder()
        record = self._record(name, data, options)
        return self._added(await adder.submit(record), record, returns)

    def new_record(
        self, name: str, data: Any, options: Mapping[str, Any]
    ) -> tuple[NewRecord, Mapping[str, Any]]:
        """Return what `add` would store, checked, and the links to other jobs; for flows.

        Raises:
            ConfigurationError, SerializationError: As `add`.
        """
        prepared = self._prepare(options)
        return self._record(name, dumps({} if data is None else data), prepared), prepared.extras or {}

    def _prepare(self, options: Mapping[str, Any]) -> PreparedOptions:
        if not options:
            return self._defaults
        try:
            return prepare(options, self.default_job_options)
        except ConfigurationError as error:
            raise ConfigurationError(f"queue {self.name!r}: {error}") from None

    def _record(self, name: str, data: str, options: PreparedOptions) -> NewRecord:
        check_job_name(name, f"queue {self.name!r}")
        if options.size_limit is not None:
            check_size(
                data, options.size_limit, f"queue {self.name!r}: data of job {name!r}", "its size_limit"
            )
        elif len(data) * 4 > self.limits.data:
            check_size(data, self.limits.data, f"queue {self.name!r}: data of job {name!r}", "Limits.data")
        if len(options.stored) * 4 > self.limits.options:
            check_size(
                options.stored,
                self.limits.options,
                f"queue {self.name!r}: options of job {name!r}",
                "Limits.options",
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
            dumps(options.extras) if options.extras else "",
        )

    async def _adder(self) -> Adder:
        # A job's timestamp is the server's time, so that comes first.
        await self.connection.learn_time()
        loop = asyncio.get_running_loop()
        adder = self._adders.get(loop)
        if adder is None:
            adder = self._adders[loop] = Adder(self.name, self.scripts, self.connection)
        return adder

    def _added(
        self, job_id: str | int, record: NewRecord, returns: Callable[[Any], Any] | None = None
    ) -> Job[Any]:
        if isinstance(job_id, int):
            raise refusal(job_id, record.job_id or record.name)
        return self.job_of(record._replace(job_id=job_id), returns)

    def job_of(self, record: NewRecord, returns: Callable[[Any], Any] | None = None) -> Job[Any]:
        """Return the job that a record stands for, once it has an id."""
        fields = {
            "name": record.name,
            "data": record.data,
            "opts": record.options,
            "timestamp": str(record.timestamp),
            "delay": str(record.delay_ms),
            "priority": str(record.priority),
        }
        if record.extras:
            extras: dict[str, Any] = loads(record.extras)
            fields.update({field: extras[name] for field, name in _LINKS.items() if name in extras})
        return Job(self, record.job_id, fields, returns=returns)

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

    # Opening and closing

    async def pause(self) -> None:
        """Let no worker fetch from this queue until `resume`. Running jobs go on, jobs can be added."""
        await self.scripts.pause("pause")

    async def resume(self) -> None:
        """Let workers fetch again."""
        left = await self.scripts.pause("resume")
        while left > 0:
            left = await self.scripts.pause("continue")

    # Limits

    async def set_global_concurrency(self, concurrency: int) -> None:
        """Let no more than so many jobs of this queue run at once, over all workers."""
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"queue {self.name!r}: concurrency must be a whole number, at least 1")
        await self.connection.execute("HSET", self.keys.key("meta"), "concurrency", concurrency)

    async def get_global_concurrency(self) -> int | None:
        """Return how many jobs may run at once over all workers; None for any number."""
        value = await self.connection.execute("HGET", self.keys.key("meta"), "concurrency")
        return int(value) if value else None

    async def remove_global_concurrency(self) -> None:
        """Let any number of jobs run at once."""
        await self.connection.execute("HDEL", self.keys.key("meta"), "concurrency")

    async def is_maxed(self) -> bool:
        """Whether as many jobs run as the global concurrency allows."""
        most = await self.get_global_concurrency()
        return most is not None and await self.connection.execute("LLEN", self.keys.key("active")) >= most

    async def set_global_rate_limit(self, most: int, duration: Duration) -> None:
        """Let no more than `most` jobs of this queue start per `duration`, over all workers."""
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"queue {self.name!r}: the rate limit must be a whole number, at least 1"
            )
        window = milliseconds(duration, "rate limit duration")
        await self.connection.execute("HSET", self.keys.key("meta"), "max", most, "duration", window)

    async def get_global_rate_limit(self) -> tuple[int, float] | None:
        """Return (jobs, seconds) of the rate limit over all workers; None where there is none."""
        most, window = await self.connection.execute("HMGET", self.keys.key("meta"), "max", "duration")
        return (int(most), int(window or 0) / 1000) if most else None

    async def remove_global_rate_limit(self) -> None:
        """Let jobs start at any rate."""
        await self.connection.execute("HDEL", self.keys.key("meta"), "max", "duration")

    async def rate_limit(self, duration: Duration) -> None:
        """Let no job start for so long. Workers obey if they, or the queue, have any rate limit."""
        window = milliseconds(duration, "rate limit duration")
        if window:
            await self.connection.execute("SET", self.keys.key("limiter"), MAX_SAFE_INTEGER, "PX", window)

    async def get_rate_limit_ttl(self, most: int | None = None) -> float:
        """Return for how many seconds the rate limit closes the queue; 0 when it does not."""
        return max(await self.scripts.get_rate_limit_ttl(most), 0) / 1000

    async def remove_rate_limit_key(self) -> None:
        """Let jobs start at once, although the limit of this window is used up."""
        await self.connection.execute("DEL", self.keys.key("limiter"))

    # Removing, and moving many

    async def remove(self, job_id: str, *, remove_children: bool = True) -> bool:
        """Remove a job, and the jobs below it; False where a worker holds one of them, and nothing has changed.

        Raises:
            SchedulerJobError: It is the next run of a job scheduler.
        """
        return await self.scripts.remove_job(job_id, with_children=remove_children)

    async def drain(self, *, delayed: bool = False) -> int:
        """Remove all jobs that wait, and delayed ones if asked; return how many. Schedulers keep their next run.

        It goes in steps of 1,000, so the queue can be used meanwhile.
        """
        removed = 0
        for state in ("wait", "paused", "prioritized", *(("delayed",) if delayed else ())):
            spared = 0
            while True:
                some, more_spared = await self.scripts.drain(state, spared, _MOST_PER_STEP)
                removed += some
                spared += more_spared
                if some + more_spared == 0:
                    break
        return removed

    async def clean(self, grace: Duration, limit: int = 0, state: State = "completed") -> list[str]:
        """Remove jobs of a state that are older than `grace`; return their ids.

        Args:
            grace: How old they must be.
            limit: About how many at most; 0 for all.
            state: Which. Active ones go only if no worker holds them.
        """
        (checked,) = checked_states((state,))
        if checked == "waiting-children":
            raise ConfigurationError(
                f"queue {self.name!r}: jobs that wait for children are not cleaned; remove them"
            )
        before_ms = self.clock.now_ms() - milliseconds(grace, "grace")
        step = min(limit, _MOST_PER_CLEAN) if limit else _MOST_PER_CLEAN
        removed: list[str] = []
        while True:
            some = await self.scripts.clean(KEY_OF_STATE[checked], before_ms, step)
            removed += some
            if len(some) < step or (limit and len(removed) >= limit):
                return removed

    async def obliterate(self, *, force: bool = False) -> None:
        """Remove the queue and all it has. It is paused first, and goes in steps of 1,000 jobs.

        Args:
            force: Although jobs are running.

        Raises:
            QueueNotEmptyError: Jobs are running, and `force` was not given; the queue is paused.
        """
        await self.pause()
        while True:
            answer = await self.scripts.obliterate(_MOST_PER_STEP, force=force)
            if answer == -2:
                raise QueueNotEmptyError(
                    f"queue {self.name!r} has jobs that are running; stop its workers, or obliterate(force=True)"
                )
            if answer == -1:
                await self.pause()
            elif answer == 0:
                return

    async def retry_jobs(self, state: FinishedState = "failed", *, count: int = 1000) -> int:
        """Run all jobs of a finished state again, in steps of `count`; return how many. Priorities are forgotten."""
        return await self._move_to_wait(state, count, self.clock.now_ms())

    async def promote_jobs(self, *, count: int = 1000) -> int:
        """Run all delayed jobs now, in steps of `count`; return how many. Priorities are forgotten."""
        return await self._move_to_wait("delayed", count, 0)

    async def _move_to_wait(self, state: State, count: int, until_ms: int) -> int:
        _positive_count(count)
        moved = 0
        while True:
            some = await self.scripts.move_jobs_to_wait(state, count, until_ms)
            moved += some
            if some < count:
                return moved

    async def remove_orphaned_jobs(self, count: int = 1000, limit: int | None = None) -> int:
        """Remove records that no state knows, as a crash of another client may leave; return how many.

        Args:
            count: How many keys are looked at per step.
            limit: About how many to remove at most.
        """
        removed, cursor = 0, "0"
        while True:
            cursor, keys = await self.connection.execute(
                "SCAN", cursor, "MATCH", escaped(self.keys.base) + "*", "COUNT", count
            )
            candidates = orphan_candidates(self.keys.base, keys)
            if candidates:
                removed += await self.scripts.remove_orphaned_jobs(candidates)
            if cursor == "0" or (limit is not None and removed >= limit):
                return removed

    async def trim_events(self, most: int) -> int:
        """Keep about the newest `most` events; return how many were removed."""
        trimmed: int = await self.connection.execute("XTRIM", self.keys.key("events"), "MAXLEN", "~", most)
        return trimmed

    async def get_deduplication_job_id(self, deduplication_id: str) -> str | None:
        """Return the job that owns a deduplication id now."""
        owner: str | None = await self.connection.execute("GET", self.keys.key(f"de:{deduplication_id}"))
        return owner

    async def remove_deduplication_key(self, deduplication_id: str) -> bool:
        """Free a deduplication id, whoever owns it; False where nobody did."""
        return await self.scripts.remove_deduplication_key(deduplication_id)

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
    cursor: str | int = 0
    try:
        while True:
            cursor, keys = await server.execute(
                "SCAN", cursor, "MATCH", f"{escaped(prefix)}:*:meta", "COUNT", 500, "TYPE", "hash"
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


def escaped(text: str) -> str:
    """Return text so that it stands for itself in a pattern of the server."""
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in text)


# Suffixes of keys that are no jobs, and what hangs off a job's key.
_NO_JOBS: Final = frozenset(
    [
        "active",
        "wait",
        "waiting-children",
        "paused",
        "id",
        "delayed",
        "prioritized",
        "stalled-check",
        "completed",
        "failed",
        "stalled",
        "repeat",
        "limiter",
        "meta",
        "events",
        "pc",
        "marker",
        "de",
        "dn",
        "metrics",
        "delay",
        "priority",
        "toril",
    ]
)
_OF_JOBS: Final = frozenset(["logs", "dependencies", "processed", "failed", "unsuccessful", "lock"])


def orphan_candidates(base: str, keys: Iterable[str]) -> list[str]:
    """Return the ids of jobs that keys of a queue may belong to."""
    ids: dict[str, None] = {}
    for key in keys:
        head, colon, tail = key[len(base) :].partition(":")
        if head not in _NO_JOBS and (not colon or tail in _OF_JOBS):
            ids[head] = None
    return list(ids)


def _positive_count(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"count must be a whole number, at least 1; got {count!r}")
