"""How queues, flow producers and workers use an `Instrumentation`: which spans there are, and what is counted.

Whoever has none pays a comparison with None. A library that raises is logged and left alone: no job is lost, delayed or
failed for the sake of a span.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar

from .codec import dumps
from .errors import (
    ConfigurationError,
    FailedChildrenError,
    PendingChildrenError,
    SerializationError,
    TorilError,
)
from .options import Telemetry
from .states import FinishedState, State
from .telemetry import (
    Attribute,
    AttributeValue,
    Counter,
    Histogram,
    Instrumentation,
    MetricName,
    Span,
    SpanKind,
)

if TYPE_CHECKING:
    from .job import Job

__all__ = ["NO_STEP", "About", "JobTrace", "NoStep", "Step", "Tracing", "traced", "with_metadata"]

About = Mapping[Attribute, AttributeValue]
"""What is said of a span."""

P = ParamSpec("P")
T = TypeVar("T", bound="Step | JobTrace")

logger = logging.getLogger("toril.telemetry")

_COUNTERS: Final = {
    "completed": (MetricName.JOBS_COMPLETED, "Number of jobs completed"),
    "failed": (MetricName.JOBS_FAILED, "Number of jobs failed"),
    "delayed": (MetricName.JOBS_DELAYED, "Number of jobs delayed"),
    "retried": (MetricName.JOBS_RETRIED, "Number of jobs retried"),
    "waiting": (MetricName.JOBS_WAITING, "Number of jobs moved back to waiting"),
    "waiting-children": (MetricName.JOBS_WAITING_CHILDREN, "Number of jobs moved to waiting for children"),
}


class Tracing:
    """The instrumentation of one queue, flow producer or worker.

    Args:
        instrumentation: The library.
        queue: The queue's name, where there is one.
        about: What is said of every span.

    Raises:
        ConfigurationError: It is no instrumentation.
    """

    def __init__(self, instrumentation: Instrumentation, queue: str, about: About | None = None) -> None:
        if not hasattr(instrumentation, "tracer") or not hasattr(instrumentation, "context_manager"):
            hint = (
                "the trace of one job is an option of `add`"
                if isinstance(instrumentation, Telemetry)
                else f"got {type(instrumentation).__name__}"
            )
            raise ConfigurationError(
                f"queue {queue!r}: telemetry takes an instrumentation, as toril.otel.OpenTelemetry(); {hint}"
            )
        self.instrumentation = instrumentation
        self.queue = queue
        self.about: About = about or {}
        self._counters: dict[str, Counter] = {}
        self._durations: Histogram | None = None

    @staticmethod
    def of(instrumentation: Instrumentation | None, queue: str, about: About | None = None) -> Tracing | None:
        """Return how this library is used; None where there is none."""
        return None if instrumentation is None else Tracing(instrumentation, queue, about)

    @staticmethod
    def of_worker(instrumentation: Instrumentation | None, queue: str, name: str) -> Tracing | None:
        """The same for a worker, whose spans tell it from others."""
        about = {Attribute.WORKER_ID: str(uuid.uuid4()), Attribute.WORKER_NAME: name}
        return Tracing.of(instrumentation, queue, about)

    def start(
        self, operation: str, attributes: About, kind: SpanKind, context: Any, target: str = ""
    ) -> Span:
        """Begin a span; `target` goes into its name behind the queue's."""
        where = " ".join(filter(None, (operation, self.queue)))
        about = {Attribute.QUEUE_NAME: self.queue, Attribute.QUEUE_OPERATION: operation}
        return self.instrumentation.tracer.start_span(
            f"{where}.{target}" if target else where,
            kind=kind,
            attributes={**_plain(about), **_plain(self.about), **_plain(attributes)},
            context=context,
        )

    def process(self, job: Job[Any]) -> JobTrace | None:
        """Begin the span of an attempt, below the span that added the job."""
        try:
            return JobTrace(self, job)
        except Exception:
            _log()
            return None

    def count(self, state: str, job_name: str, duration_ms: float) -> None:
        """Count that an attempt has led to this state, and how long it took."""
        meter = self.instrumentation.meter
        if meter is None:
            return
        if self._durations is None:
            self._durations = meter.create_histogram(
                MetricName.JOB_DURATION.value, description="Job processing duration", unit="ms"
            )
        if state not in self._counters:
            name, description = _COUNTERS[state]
            self._counters[state] = meter.create_counter(name.value, description=description, unit="1")
        attributes = _plain(
            {Attribute.QUEUE_NAME: self.queue, Attribute.JOB_NAME: job_name, Attribute.JOB_STATE: state}
        )
        self._counters[state].add(1, attributes)
        self._durations.record(duration_ms, attributes)

    def record_clock_offset(self, offset_ms: float) -> None:
        """Tell how far the server's clock is ahead of this host's."""
        try:
            if (meter := self.instrumentation.meter) is None:
                return
            gauge = meter.create_gauge(
                MetricName.CLOCK_OFFSET.value,
                description="How far the server's clock is ahead of this host's",
                unit="ms",
            )
            gauge.record(offset_ms, {})
        except Exception:
            _log()

    def record_counts(self, counts: Mapping[State, int]) -> None:
        """Tell how many jobs there are per state."""
        try:
            meter = self.instrumentation.meter
            if meter is None:
                return
            gauge = meter.create_gauge(
                MetricName.QUEUE_JOBS_COUNT.value,
                description="Number of jobs in the queue by state",
                unit="{jobs}",
            )
            for state, count in counts.items():
                about = {Attribute.QUEUE_NAME: self.queue, Attribute.QUEUE_JOBS_STATE: state}
                gauge.record(count, _plain(about))
        except Exception:
            _log()


def _harmless(method: Callable[Concatenate[T, P], None]) -> Callable[Concatenate[T, P], None]:
    @wraps(method)
    def call(self: T, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            _log()

    return call


class NoStep:
    """A `with` around what nobody watches."""

    metadata: str = ""
    """The context within, as text for the option `tm` of jobs; empty where there is none."""

    def set(self, attributes: About) -> None:
        """Say more about the span."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


NO_STEP: Final = NoStep()


class Step(NoStep):
    """A span around the body of a `with`.

    Args:
        tracing: Whose.
        operation: Begins its name.
        attributes: What is said of it.
        kind: Whose part of the work it is.
        target: Ends its name.
        is_root: It belongs to no trace of the code that runs it.
    """

    def __init__(
        self,
        tracing: Tracing,
        operation: str,
        attributes: About,
        kind: SpanKind = SpanKind.INTERNAL,
        target: str = "",
        *,
        is_root: bool = False,
    ) -> None:
        self._tracing = tracing
        self._start = (operation, attributes, kind)
        self._target = target
        self._is_root = is_root
        self._span: Span | None = None
        self._attached: Any = None

    @_harmless
    def _enter(self) -> None:
        contexts = self._tracing.instrumentation.context_manager
        context = contexts.root() if self._is_root else contexts.active()
        span = self._tracing.start(*self._start, context, self._target)
        self._span = span
        context = span.set_on_context(context)
        attached = contexts.attached(context)
        attached.__enter__()
        self._attached = attached
        if self._start[2] is SpanKind.PRODUCER:
            self.metadata = contexts.get_metadata(context)

    def __enter__(self) -> Self:
        self._enter()
        return self

    @_harmless
    def _set(self, attributes: About) -> None:
        if self._span is not None:
            self._span.set_attributes(_plain(attributes))

    def set(self, attributes: About) -> None:
        """Say more about the span."""
        self._set(attributes)

    @_harmless
    def _detach(self) -> None:
        if self._attached is not None:
            self._attached.__exit__(None, None, None)

    @_harmless
    def _end(self, error: BaseException | None) -> None:
        if self._span is not None:
            if isinstance(error, Exception):
                self._span.record_exception(error)
            self._span.end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._detach()
        self._end(error)


def traced(
    tracing: Tracing | None,
    operation: str,
    attributes: About | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    *,
    target: str = "",
    is_root: bool = False,
) -> NoStep:
    """Return a span for a `with`; where nobody watches, one that does nothing."""
    if tracing is None:
        return NO_STEP
    return Step(tracing, operation, attributes or {}, kind, target, is_root=is_root)


class JobTrace:
    """An attempt to run a job, from the fetch until the server has its end.

    Args:
        tracing: The worker's.
        job: Which.
    """

    def __init__(self, tracing: Tracing, job: Job[Any]) -> None:
        contexts = tracing.instrumentation.context_manager
        context = contexts.root()
        metadata = _context_of(job)
        if metadata is not None:
            context = contexts.from_metadata(context, metadata)
        self._tracing = tracing
        self._job = job
        self._about: About = {Attribute.JOB_ID: job.id, Attribute.JOB_NAME: job.name}
        self._began = time.perf_counter()
        self._span = tracing.start("process", self._about, SpanKind.CONSUMER, context)
        self._context = self._span.set_on_context(context)
        self._move: Span | None = None
        self._is_over = False

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what runs the job within its span."""
        attached: Any = None
        try:
            attached = self._tracing.instrumentation.context_manager.attached(self._context)
            attached.__enter__()
        except Exception:
            _log()
            attached = None
        try:
            await work
        finally:
            if attached is not None:
                try:
                    attached.__exit__(None, None, None)
                except Exception:
                    _log()

    @_harmless
    def failed(self, error: BaseException, reason: str) -> None:
        """The attempt has failed, whatever becomes of the job."""
        self._span.add_event("job failed", _plain({Attribute.JOB_FAILED_REASON: reason}))
        self._span.record_exception(error)

    @_harmless
    def completed(self) -> None:
        """The attempt has worked. What it returned is nobody's business here."""
        self._span.add_event("job completed", {})

    @_harmless
    def begin(self, operation: str) -> None:
        """The job is on its way to another state."""
        self._end_move()
        self._move = self._tracing.start(operation, self._about, SpanKind.INTERNAL, self._context)

    @_harmless
    def moved(self, state: str) -> None:
        """It has got there, and the attempt is over."""
        if not self._is_over:
            self._tracing.count(state, self._job.name, (time.perf_counter() - self._began) * 1000)

    @_harmless
    def settled(self, state: FinishedState, refused: TorilError | None) -> None:
        """The server has answered: it has taken the end, or why it did not."""
        if refused is None:
            self.moved(state)
        else:
            (self._move or self._span).record_exception(refused)
        if isinstance(refused, (PendingChildrenError, FailedChildrenError)):
            # The job is still ours, and the attempt fails for it.
            self._end_move()
        else:
            self.end()

    @_harmless
    def end(self) -> None:
        """The job is ours no longer. Safe to call twice."""
        if self._is_over:
            return
        self._is_over = True
        self._end_move()
        job = self._job
        about: dict[Attribute, AttributeValue] = {Attribute.JOB_ATTEMPTS_MADE: job.attempts_made}
        if job.processed_on is not None:
            about[Attribute.JOB_PROCESSED_TIMESTAMP] = job.processed_on
        about[Attribute.JOB_ATTEMPT_FINISHED_TIMESTAMP] = job.queue.clock.now_ms()
        self._span.set_attributes(_plain(about))
        self._span.end()

    def _end_move(self) -> None:
        move, self._move = self._move, None
        if move is not None:
            move.end()


def with_metadata(options: str, metadata: str) -> str:
    """Return a job's stored options with the context that it belongs to, unless they have one or want none."""
    if not metadata or '"tm":' in options or '"omc":' in options:
        return options
    return f"{options[:-1]}{',' if len(options) > 2 else ''}{dumps('tm')}:{dumps(metadata)}}}"


def _context_of(job: Job[Any]) -> str | None:
    try:
        telemetry = job.telemetry
    except SerializationError:
        # The attempt will fail for it.
        return None
    return None if telemetry.omit_context else telemetry.metadata


def _plain(attributes: About) -> dict[str, Any]:
    """About whose names are text and nothing else, as exporters want them."""
    return {str(name): value for name, value in attributes.items()}


def _log() -> None:
    logger.exception("the instrumentation raised; what it was told is lost, and nothing else")
