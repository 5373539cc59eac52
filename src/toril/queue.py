"""A queue as its producers and operators see it: add jobs, look at them, pause and resume.

It runs nothing; see `worker`. Every change of a job's state is a script, see `scripts`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Unpack

from msgspec import Struct, field
from msgspec.structs import replace

from ._adding import Adder, how_many
from ._answers import ask
from ._closing import Closing
from ._durability import add_durably
from ._insisting import add_surely
from ._per_loop import PerLoop
from ._repeating import RepeatStrategy
from ._shown import shown
from ._tracing import About, Tracing, traced, with_metadata
from .backoff import Duration
from .clock import Clock
from .codec import dumps, loads
from .connection import Connection
from .errors import (
    ConfigurationError,
    ScriptForgottenError,
    SerializationError,
    refusal,
)
from .job import Job
from .job_scheduler import JobSchedulers
from .keys import QueueKeys
from .limits import DEFAULT_LIMITS, Limits, check_count, check_job_name, check_size
from .options import JobOptions, PreparedOptions, prepare
from .processor import Decorator, Processor
from .queue_getters import QueueGetters
from .queue_verbs import QueueVerbs, escaped, positive_count
from .scripts import ADD_JOB, NewRecord, Scripts, load
from .telemetry import Attribute, Instrumentation, SpanKind

if TYPE_CHECKING:
    from .queue_events import EndListener
    from .sync import SyncQueue

__all__ = ["NewJob", "Queue", "find_queues"]

R = TypeVar("R")

# Fields of a record that a script fills from the extras.
_LINKS: Final = {"parentKey": "parent_key", "parent": "parent"}


# A struct, since a dataclass that is frozen takes longer to make than to check and to send.
class NewJob(Struct, frozen=True):
    """A member of `add_bulk`.

    Attributes:
        name: Chooses the processor.
        data: Any JSON.
        options: As the keywords of `add`.
    """

    name: str
    data: Any = None
    options: JobOptions = field(default_factory=JobOptions)


class Queue(QueueVerbs, QueueGetters, JobSchedulers, Closing):
    """A queue by name. Making one costs nothing; the connection opens with the first call.

    One object serves any number of event loops, one after another or in several threads.

    Args:
        name: Without `:`.
        connection: A URL or a `Connection` that is shared; without it `TORIL_URL`, else `redis://localhost:6379`.
        prefix: What all keys begin with. On a cluster it holds a hash tag, e.g. `{bull}`.
        default_job_options: For options that `add` is not given.
        clock: What time it is; without it the server's.
        limits: How large data, return values and the like may be, here and in workers of this queue.
        events_max_len: About how many events the queue keeps for listeners. Without it what the queue's settings
            in Redis say, which is 10,000 at first. It is written with the first job that is added.
        repeat_strategy: Reads the patterns of job schedulers instead of the cron parser. All workers of the queue
            need the same; those of another program would plan other times.
        telemetry: Spans and measurements of what is done to the queue; see `toril.otel`. Jobs take along the trace of
            the code that adds them. Not to be confused with the option `telemetry` of one job.

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
        events_max_len: int | None = None,
        repeat_strategy: RepeatStrategy | None = None,
        telemetry: Instrumentation | None = None,
    ) -> None:
        self.limits: Limits = limits
        self.keys: QueueKeys = QueueKeys(prefix, name)
        self.connection: Connection = Connection.of(connection)
        self._where = where = f"queue {name!r}"
        if not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{where}: limits must be Limits(...), got {type(limits).__name__}")
        if not isinstance(default_job_options or {}, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = type(default_job_options).__name__
            raise ConfigurationError(f"{where}: default_job_options must be a dict of options, got {kind}")
        self.default_job_options: Mapping[str, Any] = dict(default_job_options or {})
        try:
            self._defaults = prepare({}, self.default_job_options)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: default_job_options: {error}") from None
        if self._defaults.job_id:
            raise ConfigurationError(f"{where}: job_id cannot be a default, since it names one job")
        self.clock: Clock = clock or self.connection.clock
        self.scripts: Scripts = Scripts(self.keys, self.connection)
        self.processors: dict[str, Processor[..., Any]] = {}
        self.repeat_strategy: RepeatStrategy | None = repeat_strategy
        self.telemetry: Instrumentation | None = telemetry
        self.tracing: Tracing | None = Tracing.of(telemetry, name)
        if events_max_len is not None:
            positive_count(events_max_len, f"queue {name!r}: events_max_len")
        self._events_max_len = events_max_len
        self._owns_connection = not isinstance(connection, Connection)
        self._adders: PerLoop[Adder] = PerLoop()
        self._listeners: PerLoop[EndListener] = PerLoop()

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
            DurabilityError: With `durability`: it was added, and is not known to be as durable as that.
            ServerUnreachableError: No connection; nothing was added.
            ConnectionLostError: No answer, although it was asked for some seconds whether the job has arrived; it may
                or may not have been added. With a `job_id` it is safe to repeat.
            ServerRefusedError: The server cannot store it now: it is full, read-only, or loading its data after a
                start. Nothing was added.
        """
        try:
            stored = dumps({} if data is None else data)
        except SerializationError as error:
            raise self._about(name, error) from None
        return await self.add_stored(name, stored, self._prepare(options))

    async def add_bulk(
        self, jobs: Iterable[NewJob | tuple[str, Any] | tuple[str, Any, JobOptions]]
    ) -> list[Job[Any]]:
        """Add many jobs, in order: up to 500 in one call, more in several.

        All are checked before the first is added.

        Args:
            jobs: `NewJob`, or tuples (name, data) or (name, data, options).

        Raises:
            As `add`; of a list of more than 500, other calls than the failed one may have added their jobs, and of one
            with a `parent` that does not exist, all but its children are added.
        """
        if not isinstance(jobs, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"queue {self.name!r}: add_bulk takes a list of jobs, got {shown(jobs)}")
        members = [job if isinstance(job, NewJob) else self._new_job(job) for job in jobs]
        check_count(len(members), self.limits.jobs, f"queue {self.name!r}: the list")
        adder = await self._adder()
        records: list[NewRecord] = []
        durability: str | None = None
        now = str(self.clock.now_ms())
        for index, job in enumerate(members):
            try:
                try:
                    data = dumps({} if job.data is None else job.data)
                except SerializationError as error:
                    raise self._about(job.name, error) from None
                options = self._prepare(job.options) if job.options else self._defaults
                records.append(self._record(job.name, data, options, now))
            except (ConfigurationError, SerializationError) as error:
                raise type(error)(f"job {index} of the list: {error}") from None
            if options.durability is not None and durability != "fsynced":
                # All go over one connection, so the list is as durable as its most demanding job.
                durability = options.durability
        if self.tracing is None:
            return await self._add_all(adder, records, durability)
        names = [record.name for record in records]
        about: About = {Attribute.BULK_NAMES: names, Attribute.BULK_COUNT: len(names)}
        with traced(self.tracing, "addBulk", about, SpanKind.PRODUCER) as step:
            records = [
                replace(record, options=with_metadata(record.options, step.metadata)) for record in records
            ]
            return await self._add_all(adder, records, durability)

    async def _add_all(
        self, adder: Adder, records: list[NewRecord], durability: str | None
    ) -> list[Job[Any]]:
        added: list[Job[Any]] = []
        calls = adder.add_all(records) if durability is None else self._add_durably(records, durability)
        async with aclosing(calls):
            async for some, answers in calls:
                added += map(self._added, answers, some)
        return added

    async def _add_durably(
        self, records: list[NewRecord], durability: str
    ) -> AsyncGenerator[tuple[Sequence[NewRecord], list[str | int]]]:
        start = 0
        while start < len(records):
            some = records[start : start + how_many(records, start)]
            yield some, await self._durably(some, durability)
            start += len(some)

    async def add_stored(
        self, name: str, data: str, options: PreparedOptions, returns: Callable[[Any], Any] | None = None
    ) -> Job[Any]:
        """Add a job whose data is JSON text already and whose options have been checked. Typed jobs come this way."""
        adder = self._adders.get(asyncio.get_running_loop()) or await self._adder()
        record = self._record(name, data, options)
        if self.tracing is not None:
            return await self._add_traced(adder, record, options, returns)
        if options.durability is not None:
            (answer,) = await self._durably([record], options.durability)
            return self._added(answer, record, returns)
        return self._added(await adder.submit(record), record, returns)

    async def _add_traced(
        self,
        adder: Adder,
        record: NewRecord,
        options: PreparedOptions,
        returns: Callable[[Any], Any] | None,
    ) -> Job[Any]:
        about = {Attribute.JOB_NAME: record.name}
        deduplication = (options.extras or {}).get("deduplication")
        if deduplication:
            about[Attribute.DEDUPLICATION_KEY] = deduplication["id"]
        with traced(self.tracing, "add", about, SpanKind.PRODUCER, target=record.name) as step:
            record = replace(record, options=with_metadata(record.options, step.metadata))
            if options.durability is None:
                answer = await adder.submit(record)
            else:
                (answer,) = await self._durably([record], options.durability)
            job = self._added(answer, record, returns)
            step.set({Attribute.JOB_ID: job.id})
            return job

    async def _durably(self, records: list[NewRecord], durability: str) -> list[str | int]:
        # With ids of our own a second try adds nothing twice.
        named = [record if record.job_id else replace(record, job_id=str(uuid.uuid4())) for record in records]
        ids = [record.job_id for record in named]
        where = f"queue {self.name!r}"
        command = self.scripts.command("add_job", ADD_JOB, *self.scripts.add_job_args(named))

        async def add(_: bool) -> list[str | int]:
            try:
                return await add_durably(self.connection, command, durability, where, ids)
            except ScriptForgottenError:
                await self.connection.execute_all(
                    [("EXISTS", self.keys.key("id")), ("SCRIPT", "LOAD", load("add_job").text)]
                )
                return await add_durably(self.connection, command, durability, where, ids)

        return await add_surely(add, where)

    def new_record(
        self, name: str, data: Any, options: Mapping[str, Any]
    ) -> tuple[NewRecord, Mapping[str, Any]]:
        """Return what `add` would store, checked, and the links to other jobs; for flows.

        Raises:
            ConfigurationError, SerializationError: As `add`.
        """
        prepared = self._prepare(options)
        if prepared.durability is not None:
            raise ConfigurationError(
                f"queue {self.name!r}: durability is for `add` and `add_bulk`; a flow is added without it"
            )
        try:
            stored = dumps({} if data is None else data)
        except SerializationError as error:
            raise self._about(name, error) from None
        return self._record(name, stored, prepared), prepared.extras or {}

    def _prepare(self, options: Mapping[str, Any]) -> PreparedOptions:
        if not options:
            return self._defaults
        try:
            return prepare(options, self.default_job_options)
        except (ConfigurationError, SerializationError) as error:
            raise type(error)(f"queue {self.name!r}: {error}") from None

    def _about(self, name: str, error: SerializationError) -> SerializationError:
        return SerializationError(f"{self._where}: job {shown(name)}: {error}")

    def _new_job(self, job: tuple[Any, ...]) -> NewJob:
        if not isinstance(job, tuple) or not 1 <= len(job) <= 3:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"queue {self.name!r}: a list of jobs holds NewJob(...), (name, data) or (name, data, options), "
                f"got {shown(job)}"
            )
        given: list[Any] = [*job, None, None]
        name, data, options = given[:3]
        return NewJob(name, data, options or JobOptions())

    def _record(self, name: str, data: str, options: PreparedOptions, now: str = "") -> NewRecord:
        check_job_name(name, self._where)
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
        if options.timestamp is not None:
            now = str(options.timestamp)
        return NewRecord(
            options.job_id,
            name,
            data,
            options.stored,
            now or str(self.clock.now_ms()),
            options.delay_ms,
            options.priority,
            options.lifo,
            dumps(options.extras) if options.extras else "",
        )

    async def _adder(self) -> Adder:
        # A job's timestamp is the server's time, so that comes first.
        await self.connection.learn_time()
        loop = asyncio.get_running_loop()
        if loop not in self._adders and self._events_max_len is not None:
            await self.connection.execute(
                "HSET", self.keys.key("meta"), "opts.maxLenEvents", self._events_max_len
            )
        # Somebody else may have made one meanwhile.
        adder = self._adders.get(loop)
        if adder is None:
            adder = self._adders[loop] = Adder(self.name, self.scripts, self.connection)
        return adder

    def _added(
        self, job_id: str | int, record: NewRecord, returns: Callable[[Any], Any] | None = None
    ) -> Job[Any]:
        if not isinstance(job_id, str):
            raise refusal(job_id, record.job_id or record.name, self.name)
        return self.job_of(record, job_id, returns)

    def job_of(self, record: NewRecord, job_id: str, returns: Callable[[Any], Any] | None = None) -> Job[Any]:
        """Return the job that a record stands for, with the id that it has got."""
        fields = {
            "name": record.name,
            "data": record.data,
            "opts": record.options,
            "timestamp": record.timestamp,
            "delay": str(record.delay_ms) if record.delay_ms else "0",
            "priority": str(record.priority) if record.priority else "0",
        }
        if record.extras:
            extras: dict[str, Any] = loads(record.extras)
            fields.update({field: extras[name] for field, name in _LINKS.items() if name in extras})
        return Job(self, job_id, fields, returns=returns)

    # Typed processors

    def processor(
        self,
        name: str | None = None,
        /,
        *,
        timeout: Duration | None = None,
        sandboxed: bool = False,
        **options: Unpack[JobOptions],
    ) -> Decorator:
        """Make a function the processor of jobs of this name, and their typed front door.

        What the function takes is what its jobs are about. A parameter `job: Job` (in a plain `def`, `job: SyncJob`)
        receives the job instead; it stands first, so that type checkers leave it out of `add`.

        Args:
            name: Of the jobs; without it the function's, with `-` for `_`.
            timeout: How long an attempt may take; it fails after that. For `async def`, or where it is sandboxed.
            sandboxed: Run it in a process of its own, which is killed when it runs out of time or is cancelled, and
                whose crash fails the one job. It has to stand at the top of a module that can be imported.
            options: Defaults for its jobs, see `JobOptions`.

        Raises:
            ConfigurationError: The name is taken, a parameter cannot come from JSON, or a sandbox could not import it.
        """
        return Decorator(self, name, timeout, {**options}, sandboxed=sandboxed)

    # Waiting and closing

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
                f"job {job_id!r} in queue {self.name!r} has not ended after {timeout} s; "
                f"`{self.keys.command('why', job_id)}` says why"
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


async def find_queues(connection: str | Connection | None = None, prefix: str = "bull") -> list[str]:
    """Return the names of the queues under a prefix, sorted. It scans the server's keys in small steps."""
    server = Connection.of(connection)
    names: set[str] = set()
    try:
        for node in await server.nodes():
            cursor = 0
            while True:
                scan = ("SCAN", cursor, "MATCH", f"{escaped(prefix)}:*:meta", "COUNT", 500, "TYPE", "hash")
                cursor, keys = await ask(node, tuple[int, list[str]], *scan)
                found = (key[len(prefix) + 1 : -len(":meta")] for key in keys)
                names.update(name for name in found if ":" not in name)
                if cursor == 0:
                    break
    finally:
        if server is not connection:
            await server.close()
    return sorted(names)
