"""What toril asks of a telemetry library: spans, a context that travels with jobs, and meters.

`Queue`, `FlowProducer` and `Worker` take an `Instrumentation` as `telemetry=`; `toril.otel` has OpenTelemetry's.
The parts, and the names in what is reported, are BullMQ's, so that what watches Node's queues watches these too.
How they are used is in `_tracing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum, StrEnum
from typing import Any, Protocol

__all__ = [
    "Attribute",
    "AttributeValue",
    "Attributes",
    "ContextManager",
    "Counter",
    "Gauge",
    "Histogram",
    "Instrumentation",
    "Meter",
    "MetricName",
    "Span",
    "SpanKind",
    "Tracer",
]

AttributeValue = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, AttributeValue]

Context = Any
"""Whatever the library keeps as its context; toril only hands it on."""


class SpanKind(IntEnum):
    """Whose part of the work a span is, with BullMQ's numbers."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2
    PRODUCER = 3
    CONSUMER = 4


class Attribute(StrEnum):
    """The names of what is said about spans and measurements."""

    QUEUE_NAME = "bullmq.queue.name"
    QUEUE_OPERATION = "bullmq.queue.operation"
    QUEUE_DRAIN_DELAY = "bullmq.queue.drain.delay"
    QUEUE_GRACE = "bullmq.queue.grace"
    QUEUE_CLEAN_LIMIT = "bullmq.queue.clean.limit"
    QUEUE_CLEAN_COUNT = "bullmq.queue.clean.count"
    QUEUE_RATE_LIMIT = "bullmq.queue.rate.limit"
    QUEUE_OPTIONS = "bullmq.queue.options"
    QUEUE_EVENT_MAX_LENGTH = "bullmq.queue.event.max.length"
    QUEUE_JOBS_STATE = "bullmq.queue.jobs.state"
    BULK_COUNT = "bullmq.job.bulk.count"
    BULK_NAMES = "bullmq.job.bulk.names"
    JOB_NAME = "bullmq.job.name"
    JOB_ID = "bullmq.job.id"
    JOB_TYPE = "bullmq.job.type"
    JOB_STATE = "bullmq.job.state"
    JOB_OPTIONS = "bullmq.job.options"
    JOB_ATTEMPTS_MADE = "bullmq.job.attempts.made"
    JOB_PROCESSED_TIMESTAMP = "bullmq.job.processed.timestamp"
    JOB_ATTEMPT_FINISHED_TIMESTAMP = "bullmq.job.attempt_finished_timestamp"
    JOB_FAILED_REASON = "bullmq.job.failed.reason"
    JOB_SCHEDULER_ID = "bullmq.job.scheduler.id"
    DEDUPLICATION_KEY = "bullmq.job.deduplication.key"
    FLOW_NAME = "bullmq.flow.name"
    WORKER_ID = "bullmq.worker.id"
    WORKER_NAME = "bullmq.worker.name"
    WORKER_DO_NOT_WAIT_ACTIVE = "bullmq.worker.do.not.wait.active"
    WORKER_FORCE_CLOSE = "bullmq.worker.force.close"
    WORKER_STALLED_JOBS = "bullmq.worker.stalled.jobs"
    WORKER_JOBS_TO_EXTEND_LOCKS = "bullmq.worker.jobs.to.extend.locks"


class MetricName(StrEnum):
    """The names of what is measured. The counters count what workers make of jobs; times are in milliseconds.

    `CLOCK_OFFSET` is toril's own: how far the server's clock is ahead of a worker's host.
    """

    QUEUE_JOBS_COUNT = "bullmq.queue.jobs"
    JOBS_COMPLETED = "bullmq.jobs.completed"
    JOBS_FAILED = "bullmq.jobs.failed"
    JOBS_DELAYED = "bullmq.jobs.delayed"
    JOBS_RETRIED = "bullmq.jobs.retried"
    JOBS_WAITING = "bullmq.jobs.waiting"
    JOBS_WAITING_CHILDREN = "bullmq.jobs.waiting_children"
    JOB_DURATION = "bullmq.job.duration"
    CLOCK_OFFSET = "toril.clock.offset"


class Span(Protocol):
    """A piece of work, from its start until `end`."""

    def set_on_context(self, context: Context) -> Context:
        """Return the context in which this span is the parent of what follows."""
        ...

    def set_attributes(self, attributes: Attributes) -> None:
        """Say more about it."""
        ...

    def add_event(self, name: str, attributes: Attributes) -> None:
        """Note that something happened within it, now."""
        ...

    def record_exception(self, error: BaseException) -> None:
        """Note that it has failed, and why."""
        ...

    def end(self) -> None:
        """Close it; nothing is said about it any more."""
        ...


class Tracer(Protocol):
    """Makes spans. It is called from the event loop, and from the thread that renews locks."""

    def start_span(self, name: str, *, kind: SpanKind, attributes: Attributes, context: Context) -> Span:
        """Begin a span now, below whatever span the context holds."""
        ...


class ContextManager(Protocol):
    """Knows in which context code runs, and puts a context into text and back."""

    def active(self) -> Context:
        """Return the context of the running code."""
        ...

    def root(self) -> Context:
        """Return a context that belongs to no trace."""
        ...

    def attached(self, context: Context) -> AbstractContextManager[object]:
        """Run the body of a `with` in this context; it holds over `await`."""
        ...

    def get_metadata(self, context: Context) -> str:
        """Return a context as text; empty where there is nothing to hand on."""
        ...

    def from_metadata(self, context: Context, metadata: str) -> Context:
        """Return a context with what the text says. A stranger may have written it: what is no context adds nothing."""
        ...


class Counter(Protocol):
    """Counts upwards."""

    def add(self, value: int, attributes: Attributes, /) -> None:
        """Count so many more."""
        ...


class Histogram(Protocol):
    """Collects values of which the distribution matters."""

    def record(self, value: float, attributes: Attributes, /) -> None:
        """Take a value."""
        ...


class Gauge(Protocol):
    """Holds a value that goes up and down."""

    def record(self, value: float, attributes: Attributes, /) -> None:
        """Replace the value."""
        ...


class Meter(Protocol):
    """Makes instruments; each is asked for once per queue, flow producer or worker."""

    def create_counter(self, name: str, *, description: str, unit: str) -> Counter:
        """Return a counter of this name."""
        ...

    def create_histogram(self, name: str, *, description: str, unit: str) -> Histogram:
        """Return a histogram of this name."""
        ...

    def create_gauge(self, name: str, *, description: str, unit: str) -> Gauge:
        """Return a gauge of this name."""
        ...


class Instrumentation(Protocol):
    """A telemetry library, as toril uses it. One serves any number of queues and workers, in several threads.

    What it raises is logged, and hurts no job.
    """

    @property
    def tracer(self) -> Tracer:
        """Makes the spans."""
        ...

    @property
    def context_manager(self) -> ContextManager:
        """Carries the context."""
        ...

    @property
    def meter(self) -> Meter | None:
        """Makes the instruments; None where nothing is to be measured."""
        ...
