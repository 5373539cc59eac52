"""Typed jobs: a function that is the processor of a kind of job, and the way to add such jobs.

`@queue.processor(...)` turns a function into a `Processor`. Calling it runs the function, here and now;
`.add(...)` with the same arguments adds a job, for a worker to run. The types of the arguments and of
the result reach from one to the other.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from ._sandbox.words import target_of
from ._signature import Signature, result_reader
from .backoff import Duration, milliseconds
from .errors import ConfigurationError, SerializationError
from .job import Job
from .options import JobOptions, PreparedOptions, prepare

if TYPE_CHECKING:
    from .queue import Queue
    from .sync import SyncJob

__all__ = ["Adder", "Decorator", "Processor", "SyncAdder"]

P = ParamSpec("P")
R = TypeVar("R")


class _Anything:
    """Nobody's argument: a parameter that would take it takes all."""


class Adder(Generic[P, R]):
    """A way to add jobs of one kind, with certain options."""

    def __init__(
        self,
        queue: Queue,
        name: str,
        signature: Signature,
        returns: Callable[[Any], Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        self.queue: Queue = queue
        self.name: str = name
        self._signature = signature
        self._returns = returns
        self._options = options
        try:
            self._prepared: PreparedOptions = prepare(options, queue.default_job_options)
        except ConfigurationError as error:
            raise ConfigurationError(f"processor {name!r} of queue {queue.name!r}: {error}") from None

    async def add(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Add a job with these arguments.

        Raises:
            SerializationError: They do not fit the processor's signature.
            ConnectionLostError, ServerRefusedError: As `Queue.add`.
        """
        data = self._signature.encode(args, kwargs)
        return cast("Job[R]", await self.queue.add_stored(self.name, data, self._prepared, self._returns))

    def options(self, **options: Unpack[JobOptions]) -> Adder[P, R]:
        """Return the same with these options on top.

        Raises:
            ConfigurationError: An option cannot be.
        """
        merged = {**self._options, **options}
        return Adder(self.queue, self.name, self._signature, self._returns, merged)

    @property
    def sync(self) -> SyncAdder[P, R]:
        """The same without asyncio."""
        return SyncAdder(self)


class SyncAdder(Generic[P, R]):
    """A way to add jobs of one kind without asyncio."""

    def __init__(self, adder: Adder[P, R]) -> None:
        self._adder = adder

    def add(self, *args: P.args, **kwargs: P.kwargs) -> SyncJob[R]:
        """Add a job with these arguments; raises as `Adder.add`."""
        from .sync import SyncJob, run

        return SyncJob(run(self._adder.add(*args, **kwargs)))

    def options(self, **options: Unpack[JobOptions]) -> SyncAdder[P, R]:
        """Return the same with these options on top."""
        return SyncAdder(self._adder.options(**options))


class Processor(Adder[P, R]):
    """A function, and the kind of job that it processes. Made by `Queue.processor`.

    Attributes:
        function: What a worker calls.
        timeout: Seconds that an attempt may take; None for no limit.
        target: `module:name`, by which a child finds the function; None where it runs in the worker itself.
    """

    def __init__(
        self,
        queue: Queue,
        name: str,
        function: Callable[..., Any],
        timeout: Duration | None,
        options: Mapping[str, Any],
        *,
        sandboxed: bool = False,
    ) -> None:
        where = f"processor {name!r} of queue {queue.name!r}"
        signature = Signature.of(function, where)
        if "job_id" in options:
            raise ConfigurationError(
                f"{where}: job_id names one job; give it with .options(job_id=...).add(...)"
            )
        if timeout is not None and not signature.is_async and not sandboxed:
            raise ConfigurationError(
                f"{where}: timeout= needs an `async def`, since a thread cannot be stopped from outside; "
                "sandboxed=True runs it in a process, which can"
            )
        super().__init__(queue, name, signature, result_reader(function), options)
        self.function: Callable[..., Any] = function
        self.timeout: float | None = (
            None if timeout is None else milliseconds(timeout, f"{where}: timeout") / 1000
        )
        self.target: str | None = target_of(function, where) if sandboxed else None
        # Not its attributes: those of a processor of another queue, or of whatever else, would stand for our own.
        functools.update_wrapper(self, function, updated=())

    @property
    def is_async(self) -> bool:
        """Whether it runs on an event loop; else it runs in a thread, or in its sandbox's main thread."""
        return self._signature.is_async

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself; no job is made."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Processor {self.name!r} of {self.queue.qualified_name!r}>"

    def arguments(self, job: Job[Any]) -> dict[str, Any]:
        """Return the arguments of the call that a job stands for.

        Raises:
            SerializationError: The job's data does not fit the signature; with the path of the fault.
        """
        try:
            return self._signature.arguments(job)
        except SerializationError as error:
            raise SerializationError(f"job {job.id!r}: {error}") from None


class Decorator:
    """What `Queue.processor(...)` returns: it makes a `Processor` of the function below it."""

    def __init__(
        self,
        queue: Queue,
        name: str | None,
        timeout: Duration | None,
        options: Mapping[str, Any],
        *,
        sandboxed: bool = False,
    ) -> None:
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            bare = "; write @queue.processor(), with parentheses" if callable(name) else ""
            raise ConfigurationError(
                f"queue {queue.name!r}: a processor's name is text, not {type(name).__name__}{bare}"
            )
        self._queue = queue
        self._is_sandboxed = sandboxed
        self._name = name
        self._timeout = timeout
        self._options = options

    # A first parameter that takes anything would match the job below and be lost: what `add` takes is
    # left open then. The job is left out of `add` where it comes first.
    @overload
    def __call__(
        self, function: Callable[Concatenate[_Anything, P], Awaitable[R]], /
    ) -> Processor[..., R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[_Anything, P], R], /) -> Processor[..., R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Job[Any], P], Awaitable[R]], /) -> Processor[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Processor[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Job[Any], P], R], /) -> Processor[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[SyncJob[Any], P], R], /) -> Processor[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Processor[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Processor[..., Any]:
        """Make this function the processor of its jobs."""
        queue = self._queue
        name = self._name or getattr(function, "__name__", "").replace("_", "-").strip("-")
        if not name or name == "<lambda>":
            raise ConfigurationError(
                f"queue {queue.name!r}: a processor without a name; @queue.processor('name')"
            )
        if name in queue.processors:
            raise ConfigurationError(f"queue {queue.name!r} has a processor {name!r} already")
        processor: Processor[..., Any] = Processor(
            queue, name, function, self._timeout, self._options, sandboxed=self._is_sandboxed
        )
        queue.processors[name] = processor
        return processor
