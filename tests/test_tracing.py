"""Spans and measurements under BullMQ's names, one trace from whoever adds a job to whoever runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.patience import ended
from toril import (
    ConfigurationError,
    DelayedError,
    FlowJob,
    FlowProducer,
    Job,
    JobFailedError,
    Parent,
    Queue,
    RateLimitError,
    Telemetry,
    WaitingChildrenError,
    WaitingError,
    Worker,
)
from toril.otel import OpenTelemetry
from toril.telemetry import Attribute, Attributes, Instrumentation, MetricName, SpanKind

TRACE = Telemetry('{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}')


class Watch:
    """An instrumentation, and what it has been told."""

    def __init__(self, propagator: TextMapPropagator | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry(
            tracer_provider=self.provider, meter_provider=meters, propagator=propagator
        )

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """Those that have ended, in the order of their start."""
        spans = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        return [span for span in spans if span.name == name or not name]

    def span(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def measured(self, *, with_clock: bool = False) -> dict[tuple[str, str], Any]:
        """By metric and state: the counts, and how many durations there are; the clock's offset where asked."""
        data = self.reader.get_metrics_data()
        found: dict[tuple[str, str], Any] = {}
        for resource in data.resource_metrics if data else ():
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == MetricName.CLOCK_OFFSET and not with_clock:
                    continue
                for point in metric.data.data_points:
                    about = dict(point.attributes or {})
                    state = about.get(Attribute.JOB_STATE) or about.get(Attribute.QUEUE_JOBS_STATE)
                    key = (metric.name, str(state or ""))
                    amount = point.value if isinstance(point, NumberDataPoint) else point.count
                    found[key] = found.get(key, 0) + amount
        return found


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def watched(queue: Queue, server_url: str, watch: Watch) -> AsyncIterator[Queue]:
    async with Queue(
        "tests", connection=server_url, prefix=queue.prefix, telemetry=watch.telemetry
    ) as watched:
        yield watched


def ids_of(span: ReadableSpan) -> trace.SpanContext:
    context: trace.SpanContext | None = span.context
    assert context is not None
    return context


def is_below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    ids = ids_of(parent)
    return child.parent is not None and (child.parent.trace_id, child.parent.span_id) == (
        ids.trace_id,
        ids.span_id,
    )


async def test_a_job_is_one_trace(watched: Queue, watch: Watch) -> None:
    """From the code that adds it, over the attempt, to what the processor does, in a thread too."""
    tracer = watch.provider.get_tracer("tests")

    @watched.processor("square")
    def square(number: int) -> int:
        with tracer.start_as_current_span("inside"):
            return number * number

    with tracer.start_as_current_span("request"):
        job = await square.add(number=4)
    async with Worker(watched, name="w") as worker:
        assert await job.result(timeout=20) == 16
    assert worker.telemetry is watch.telemetry

    add, process = watch.span("add tests.square"), watch.span("process tests")
    assert is_below(add, watch.span("request"))
    assert is_below(process, add)
    assert is_below(watch.span("inside"), process)
    assert is_below(watch.span("complete tests"), process)
    assert (add.kind, process.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    assert (SpanKind.PRODUCER, SpanKind.CONSUMER) == (3, 4)
    about = {"bullmq.queue.name": "tests", "bullmq.job.name": "square", "bullmq.job.id": job.id}
    assert dict(add.attributes or {}) == {**about, "bullmq.queue.operation": "add"}
    told = dict(process.attributes or {})
    assert told.items() >= {**about, Attribute.WORKER_NAME.value: "w", "bullmq.job.attempts.made": 1}.items()
    assert {"bullmq.worker.id", "bullmq.job.processed.timestamp"} <= told.keys()
    (event,) = process.events
    # What it returned is payload.
    assert (event.name, dict(event.attributes or {})) == ("job completed", {})
    assert watch.measured() == {
        (MetricName.JOBS_COMPLETED, "completed"): 1,
        (MetricName.JOB_DURATION, "completed"): 1,
    }


async def test_attempts_that_fail(watched: Queue, watch: Watch) -> None:
    """Each is a span below the same add; it says why, and what became of the job."""

    async def process(_: Job) -> None:
        raise ValueError("no luck")

    job = await watched.add("a", attempts=3, backoff=0.01)
    other = await watched.add("b", attempts=2)
    async with Worker(watched, process):
        for failing in (job, other):
            with pytest.raises(JobFailedError):
                await failing.result(timeout=20)

    attempts = watch.spans("process tests")
    assert sum(is_below(attempt, watch.span("add tests.a")) for attempt in attempts) == 3
    assert len(attempts) == 5
    for attempt in attempts:
        assert [event.name for event in attempt.events] == ["job failed", "exception"]
        assert (attempt.events[0].attributes or {})["bullmq.job.failed.reason"] == "no luck"
        assert not attempt.status.is_ok
    moves = [sum(any(is_below(move, a) for a in attempts) for move in watch.spans(f"{name} tests"))
             for name in ("delay", "retry", "fail")]  # fmt: skip
    assert moves == [2, 1, 2]
    counted = {
        state: count for (name, state), count in watch.measured().items() if name != MetricName.JOB_DURATION
    }
    assert counted == {"delayed": 2, "retried": 1, "failed": 2}
    assert watch.measured()["bullmq.jobs.failed", "failed"] == 2


async def test_steps(watched: Queue, watch: Watch) -> None:
    """A processor that steers ends an attempt, which is counted under the state that it has chosen."""
    seen: list[str] = []

    async def process(job: Job) -> None:
        if job.name in seen or job.name == "child":
            return
        seen.append(job.name)
        if job.name == "later":
            raise DelayedError(0.01)
        if job.name == "again":
            raise WaitingError
        if job.name == "slowly":
            raise RateLimitError(0.01)
        await watched.add("child", parent=Parent(job.id, watched.qualified_name))
        raise WaitingChildrenError

    jobs = [await watched.add(name) for name in ("later", "again", "slowly", "children")]
    async with Worker(watched, process, limiter=(100, 1)):
        for job in jobs:
            await ended(job)
    counted = {name: count for (name, _), count in watch.measured().items()}
    assert counted[MetricName.JOBS_DELAYED] == 1
    assert counted[MetricName.JOBS_WAITING] == 2
    assert counted[MetricName.JOBS_WAITING_CHILDREN] == 1
    assert counted[MetricName.JOBS_COMPLETED] == 5
    child = watch.span("add tests.child")
    assert sum(is_below(child, attempt) for attempt in watch.spans("process tests")) == 1


async def test_a_list_is_one_span(watched: Queue, watch: Watch) -> None:
    """Its jobs share it; one that has a trace of its own keeps it, and one that wants none gets none."""
    await watched.add_bulk(
        [
            ("a", 1),
            ("b", 2),
            ("own", 3, {"telemetry": TRACE}),
            ("none", 4, {"telemetry": Telemetry(omit_context=True)}),
        ]
    )
    bulk = watch.span("addBulk tests")
    assert (bulk.attributes or {})["bullmq.job.bulk.count"] == 4
    assert (bulk.attributes or {})["bullmq.job.bulk.names"] == ("a", "b", "own", "none")
    jobs = await watched.get_waiting()
    context = ids_of(bulk)
    shared = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    traces = {job.name: job.telemetry for job in jobs}
    assert traces == {
        "a": Telemetry(json.dumps({"traceparent": shared}, separators=(",", ":"))),
        "b": traces["a"],
        "own": TRACE,
        "none": Telemetry(omit_context=True),
    }

    async def process(_: Job) -> None: ...

    async with Worker(watched, process):
        for job in jobs:
            await ended(job)
    below = {(span.attributes or {})["bullmq.job.name"]: span.parent for span in watch.spans("process tests")}
    assert below["none"] is None
    assert below["own"] is not None
    assert below["own"].span_id == 0xB7AD6B7169203331


@pytest.mark.parametrize("stored", ["no json", "[1]", '{"traceparent":7}', "{}"])
async def test_a_trace_that_is_none_hurts_nobody(watched: Queue, watch: Watch, stored: str) -> None:
    """A stranger may write anything; the attempt begins a trace then."""
    job = await watched.add("a", telemetry=Telemetry(stored))

    async def process(_: Job) -> None: ...

    async with Worker(watched, process):
        await ended(job)
    assert watch.span("process tests").parent is None


async def test_a_flow_is_a_tree_of_spans(queue: Queue, server_url: str, watch: Watch) -> None:
    """Each job has a span of its own below its parent's, and is run below it."""

    async def process(_: Job) -> None: ...

    tree = FlowJob(
        "parent",
        "tests",
        children=[FlowJob("child", "tests"), FlowJob("own", "tests", options={"telemetry": TRACE})],
    )
    async with FlowProducer(connection=server_url, prefix=queue.prefix, telemetry=watch.telemetry) as flows:
        flow = await flows.add(tree)
        await flows.add_bulk([FlowJob("x", "tests"), FlowJob("y", "tests")])
        async with Worker(
            "tests", process, connection=server_url, prefix=queue.prefix, telemetry=watch.telemetry
        ):
            await ended(flow.job)
    parent, child, *_ = watch.spans("addNode tests")
    assert is_below(parent, watch.span("addFlow tests"))
    assert is_below(child, parent)
    assert (watch.span("addFlow tests").attributes or {})["bullmq.flow.name"] == "parent"
    runs = {(span.attributes or {})["bullmq.job.name"]: span for span in watch.spans("process tests")}
    assert is_below(runs["parent"], parent)
    assert is_below(runs["child"], child)
    assert ids_of(runs["own"]).trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert (watch.span("addBulkFlows").attributes or {})["bullmq.job.bulk.names"] == ("x", "y")


async def test_a_schedulers_runs_are_one_trace(watched: Queue, watch: Watch) -> None:
    """The span that made it is above them all, as in Node; planning the next one is a span of the run before."""

    async def process(_: Job) -> None: ...

    first = await watched.upsert_job_scheduler("s", every=3600, name="tick")
    assert first is not None
    async with Worker(watched, process):
        await ended(first)
    (pending,) = await watched.get_delayed()
    made, planned = watch.spans("add tests.tick")
    assert is_below(watch.span("process tests"), made)
    assert is_below(planned, watch.span("process tests"))
    assert (made.attributes or {})["bullmq.job.scheduler.id"] == "s"
    assert (planned.attributes or {})["bullmq.job.id"] == pending.id
    assert pending.telemetry == first.telemetry
    assert f"{ids_of(made).span_id:016x}" in (pending.telemetry.metadata or "")


async def test_verbs_are_spans(watched: Queue, watch: Watch) -> None:
    """Each under its name in BullMQ, with what it was asked."""
    job = await watched.add("a", delay=3600)
    await watched.pause()
    await watched.resume()
    await watched.rate_limit(0.001)
    await watched.promote_jobs()
    await watched.update_job_progress(job.id, 1)
    await watched.clean(0, 10, "waiting")
    await watched.retry_jobs()
    await watched.drain()
    await watched.remove("1")
    await watched.trim_events(100)
    await watched.obliterate()
    told = [(span.name, dict(span.attributes or {})) for span in watch.spans()]
    names = [name.removesuffix(" tests") for name, _ in told]
    assert names == ["add tests.a", "pause", "resume", "rateLimit", "promoteJobs", "updateJobProgress", "clean",
                     "retryJobs", "drain", "remove", "trimEvents", "obliterate", "pause"]  # fmt: skip
    assert is_below(watch.spans()[-1], watch.span("obliterate tests"))
    assert told[3][1]["bullmq.queue.rate.limit"] == 1
    assert (
        told[6][1].items()
        >= {
            "bullmq.queue.grace": 0,
            "bullmq.job.type": "waiting",
            "bullmq.queue.clean.limit": 10,
            "bullmq.queue.clean.count": 1,
        }.items()
    )


async def test_a_workers_own_spans(watched: Queue, watch: Watch) -> None:
    """Renewing locks, looking for stalled jobs, pausing and closing belong to no job's trace."""
    renewed = asyncio.Event()

    async def process(_: Job) -> None:
        await asyncio.wait_for(renewed.wait(), 20)

    job = await watched.add("a")
    with watch.provider.get_tracer("tests").start_as_current_span("start"):
        worker = Worker(watched, process, lock_duration=0.8, lock_renew_time=0.05)
        worker.on("locks_renewed", lambda _: renewed.set())
        async with worker:
            await ended(job)
            await worker.pause()
            await worker.resume()
        await worker.close()
    renewal = watch.spans("extendLocks tests")[0]
    assert renewal.parent is None
    assert (renewal.attributes or {})["bullmq.worker.jobs.to.extend.locks"] == (job.id,)
    stalled = watch.spans("moveStalledJobsToWait tests")[0]
    assert (stalled.parent, (stalled.attributes or {})["bullmq.worker.stalled.jobs"]) == (None, ())
    assert {"pause tests", "resume tests", "close tests"} <= {span.name for span in watch.spans()}

    other = await watched.add("b")
    by_hand = await worker.get_next_job()
    assert by_hand is not None
    assert (watch.span("getNextJob tests").attributes or {})["bullmq.job.id"] == other.id


async def test_a_lock_that_was_lost_is_told(watched: Queue, watch: Watch) -> None:
    """The attempt ends, is counted nowhere, and its span says what the server said."""

    async def process(job: Job) -> None:
        await watched.connection.execute("SET", watched.keys.job(job.id) + ":lock", "somebody else")

    lost = asyncio.Event()
    await watched.add("a")
    worker = Worker(watched, process)
    worker.on("lock_lost", lambda _: lost.set())
    async with worker:
        await asyncio.wait_for(lost.wait(), 20)
    assert [event.name for event in watch.span("complete tests").events] == ["exception"]
    assert watch.span("process tests").end_time is not None
    assert watch.measured() == {}


async def test_counts_are_measured_when_asked(watched: Queue, queue: Queue, watch: Watch) -> None:
    """The gauge has what `get_job_counts` returns; without telemetry there is only the answer."""
    await watched.add("a")
    assert await watched.record_job_counts_metric("waiting", "delayed") == {"waiting": 1, "delayed": 0}
    assert await queue.record_job_counts_metric("waiting") == {"waiting": 1}
    assert watch.measured() == {
        (MetricName.QUEUE_JOBS_COUNT, "waiting"): 1,
        (MetricName.QUEUE_JOBS_COUNT, "delayed"): 0,
    }


async def test_an_instrumentation_that_raises_hurts_no_job(
    queue: Queue, server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs are added and run as without it, and the log says what is wrong."""

    class Broken:
        tracer = meter = context_manager = None

    async def process(job: Job) -> None:
        if job.name == "bad":
            raise ValueError

    caplog.set_level(logging.ERROR, "toril.telemetry")
    broken: Any = Broken()
    async with Queue("tests", connection=server_url, prefix=queue.prefix, telemetry=broken) as watched:
        good, bad = await watched.add("good"), (await watched.add_bulk([("bad", {})]))[0]
        async with Worker(watched, process):
            await ended(good)
            await ended(bad)
        assert await watched.get_job_counts("completed", "failed") == {"completed": 1, "failed": 1}
        await watched.record_job_counts_metric()
    assert "the instrumentation raised" in caplog.text


def test_one_jobs_trace_is_no_instrumentation() -> None:
    """Two things of one name in BullMQ; the message says which is which."""
    wrong: Any = TRACE
    with pytest.raises(ConfigurationError, match="the trace of one job is an option of `add`"):
        Queue("tests", telemetry=wrong)
    wrong = "console"
    with pytest.raises(ConfigurationError, match="got str"):
        Worker("tests", print, telemetry=wrong)
    assert repr(OpenTelemetry(enable_metrics=False)) == "<OpenTelemetry, spans>"


async def test_a_worker_tells_how_far_the_servers_clock_is_ahead(queue: Queue, watch: Watch) -> None:
    """From its start; two clocks of one host agree, to what the measurement can tell."""
    async with Worker(queue, lambda _: None, telemetry=watch.telemetry, skip_stalled_check=True):
        assert abs(watch.measured(with_clock=True)["toril.clock.offset", ""]) < 1000


async def test_a_trace_goes_through_another_process(watched: Queue, watch: Watch, server_url: str) -> None:
    """A worker elsewhere runs the job within the trace, and what it adds comes back within it."""
    program = """
        import asyncio, sys
        from opentelemetry.sdk.trace import TracerProvider
        from toril import Queue, Worker
        from toril.otel import OpenTelemetry

        async def main():
            telemetry = OpenTelemetry(tracer_provider=TracerProvider())
            async with Queue("tests", connection=sys.argv[1], prefix=sys.argv[2], telemetry=telemetry) as queue:
                async def process(job):
                    await queue.add("back")
                    worker.stop()
                worker = Worker(queue, process)
                await worker.run()

        asyncio.run(main())
    """
    await watched.add("there")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), server_url, watched.prefix
    )
    assert await asyncio.wait_for(worker.wait(), 60) == 0
    (back,) = await watched.get_waiting()

    async def process(_: Job) -> None: ...

    async with Worker(watched, process):
        await ended(back)
    assert ids_of(watch.span("process tests")).trace_id == ids_of(watch.span("add tests.there")).trace_id
    assert not is_below(watch.span("process tests"), watch.span("add tests.there"))


async def test_a_propagator_of_ones_own(queue: Queue, server_url: str) -> None:
    """It says what a job carries."""

    class Loud(TraceContextTextMapPropagator):
        def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
            super().inject(carrier, *args, **kwargs)
            carrier["loud"] = "yes"

    watch = Watch(Loud())
    async with Queue(
        "tests", connection=server_url, prefix=queue.prefix, telemetry=watch.telemetry
    ) as watched:
        job = await watched.add("a")
    assert json.loads(job.telemetry.metadata or "").keys() == {"traceparent", "loud"}


async def test_an_instrumentation_of_ones_own(queue: Queue, server_url: str) -> None:
    """The interface is small enough to write; this one writes down who has called what."""
    told: list[str] = []

    class Note:
        def __init__(self, name: str) -> None:
            self.name = name

        def add(self, value: int, attributes: Attributes) -> None:
            told.append(f"{self.name} add")

        def record(self, value: float, attributes: Attributes) -> None:
            told.append(f"{self.name} record")

    class Own:
        """All three parts in one object, and its spans too."""

        tracer = context_manager = meter = property(lambda self: self)

        def start_span(self, name: str, *, kind: SpanKind, attributes: Attributes, context: Any) -> Own:
            told.append(f"{name} {kind.name} {context}")
            return self

        def active(self) -> str:
            return "active"

        def root(self) -> str:
            return "root"

        def attached(self, context: str) -> contextlib.AbstractContextManager[object]:
            return contextlib.nullcontext()

        def get_metadata(self, context: str) -> str:
            return f"text of {context}"

        def from_metadata(self, context: str, metadata: str) -> str:
            return f"{metadata} read"

        def set_on_context(self, context: str) -> str:
            return f"span in {context}"

        def set_attributes(self, attributes: Attributes) -> None: ...

        def add_event(self, name: str, attributes: Attributes) -> None:
            told.append(name)

        def record_exception(self, error: BaseException) -> None:
            told.append(repr(error))

        def end(self) -> None:
            told.append("end")

        def create_counter(self, name: str, *, description: str, unit: str) -> Note:
            assert (description, unit) == ("Number of jobs failed", "1")
            return Note(name)

        def create_histogram(self, name: str, *, description: str, unit: str) -> Note:
            return Note(name)

        create_gauge = create_histogram

    async def process(_: Job) -> None:
        raise ValueError("no")

    own: Any = Own()
    parts: Instrumentation = own
    assert (parts.tracer, parts.context_manager, parts.meter) == (own, own, own)
    async with Queue("tests", connection=server_url, prefix=queue.prefix, telemetry=own) as watched:
        job = await watched.add("a")
        assert told == ["add tests.a PRODUCER active", "end"]
        assert job.telemetry.metadata == "text of span in active"
        told.clear()
        async with Worker(watched, process, skip_stalled_check=True):
            await ended(job)
        assert told == [
            "toril.clock.offset record",
            "process tests CONSUMER text of span in active read",
            "job failed",
            "ValueError('no')",
            "fail tests INTERNAL span in text of span in active read",
            "bullmq.jobs.failed add",
            "bullmq.job.duration record",
            "end",
            "end",
        ]
        told.clear()
        await watched.record_job_counts_metric("failed")
        assert told == ["bullmq.queue.jobs record"]


def test_every_name_is_bullmqs() -> None:
    """The same names, so that what was made for BullMQ finds toril's spans and measurements."""
    attributes = {
        Attribute.QUEUE_NAME: "bullmq.queue.name",
        Attribute.QUEUE_OPERATION: "bullmq.queue.operation",
        Attribute.QUEUE_DRAIN_DELAY: "bullmq.queue.drain.delay",
        Attribute.QUEUE_GRACE: "bullmq.queue.grace",
        Attribute.QUEUE_CLEAN_LIMIT: "bullmq.queue.clean.limit",
        Attribute.QUEUE_CLEAN_COUNT: "bullmq.queue.clean.count",
        Attribute.QUEUE_RATE_LIMIT: "bullmq.queue.rate.limit",
        Attribute.QUEUE_OPTIONS: "bullmq.queue.options",
        Attribute.QUEUE_EVENT_MAX_LENGTH: "bullmq.queue.event.max.length",
        Attribute.QUEUE_JOBS_STATE: "bullmq.queue.jobs.state",
        Attribute.BULK_COUNT: "bullmq.job.bulk.count",
        Attribute.BULK_NAMES: "bullmq.job.bulk.names",
        Attribute.JOB_NAME: "bullmq.job.name",
        Attribute.JOB_ID: "bullmq.job.id",
        Attribute.JOB_TYPE: "bullmq.job.type",
        Attribute.JOB_STATE: "bullmq.job.state",
        Attribute.JOB_OPTIONS: "bullmq.job.options",
        Attribute.JOB_ATTEMPTS_MADE: "bullmq.job.attempts.made",
        Attribute.JOB_PROCESSED_TIMESTAMP: "bullmq.job.processed.timestamp",
        Attribute.JOB_ATTEMPT_FINISHED_TIMESTAMP: "bullmq.job.attempt_finished_timestamp",
        Attribute.JOB_FAILED_REASON: "bullmq.job.failed.reason",
        Attribute.JOB_SCHEDULER_ID: "bullmq.job.scheduler.id",
        Attribute.DEDUPLICATION_KEY: "bullmq.job.deduplication.key",
        Attribute.FLOW_NAME: "bullmq.flow.name",
        Attribute.WORKER_ID: "bullmq.worker.id",
        Attribute.WORKER_NAME: "bullmq.worker.name",
        Attribute.WORKER_DO_NOT_WAIT_ACTIVE: "bullmq.worker.do.not.wait.active",
        Attribute.WORKER_FORCE_CLOSE: "bullmq.worker.force.close",
        Attribute.WORKER_STALLED_JOBS: "bullmq.worker.stalled.jobs",
        Attribute.WORKER_JOBS_TO_EXTEND_LOCKS: "bullmq.worker.jobs.to.extend.locks",
    }
    metrics = {
        MetricName.QUEUE_JOBS_COUNT: "bullmq.queue.jobs",
        MetricName.JOBS_COMPLETED: "bullmq.jobs.completed",
        MetricName.JOBS_FAILED: "bullmq.jobs.failed",
        MetricName.JOBS_DELAYED: "bullmq.jobs.delayed",
        MetricName.JOBS_RETRIED: "bullmq.jobs.retried",
        MetricName.JOBS_WAITING: "bullmq.jobs.waiting",
        MetricName.JOBS_WAITING_CHILDREN: "bullmq.jobs.waiting_children",
        MetricName.JOB_DURATION: "bullmq.job.duration",
    }
    kinds = {
        SpanKind.INTERNAL: 0,
        SpanKind.SERVER: 1,
        SpanKind.CLIENT: 2,
        SpanKind.PRODUCER: 3,
        SpanKind.CONSUMER: 4,
    }
    assert attributes == {attribute: attribute.value for attribute in Attribute}
    ours = {MetricName.CLOCK_OFFSET}
    assert metrics == {metric: metric.value for metric in MetricName if metric not in ours}
    assert kinds == {kind: kind.value for kind in SpanKind}


def test_the_parts_of_an_instrumentation(watch: Watch) -> None:
    """OpenTelemetry's: spans below a context that was text meanwhile, and instruments that are made once."""
    parts: Instrumentation = watch.telemetry
    contexts, tracer, meter = parts.context_manager, parts.tracer, parts.meter
    outer = tracer.start_span("outer", kind=SpanKind.CLIENT, attributes={"a": 1}, context=contexts.root())
    within = outer.set_on_context(contexts.root())
    with contexts.attached(within):
        assert contexts.active() is within
    assert contexts.active() is not within
    read = contexts.from_metadata(contexts.root(), contexts.get_metadata(within))
    inner = tracer.start_span("inner", kind=SpanKind.SERVER, attributes={}, context=read)
    inner.set_attributes({"b": "2"})
    inner.add_event("seen", {"c": True})
    inner.record_exception(ValueError("no"))
    inner.end()
    outer.end()
    assert is_below(watch.span("inner"), watch.span("outer"))
    assert watch.span("outer").kind is trace.SpanKind.CLIENT
    assert dict(watch.span("inner").attributes or {}) == {"b": "2"}
    assert [event.name for event in watch.span("inner").events] == ["seen", "exception"]
    assert contexts.get_metadata(contexts.root()) == ""

    assert meter is not None
    counter = meter.create_counter("jobs", description="Jobs", unit="1")
    assert counter is meter.create_counter("jobs", description="Jobs", unit="1")
    counter.add(2, {Attribute.JOB_STATE.value: "x"})
    meter.create_histogram("time", description="Time", unit="ms").record(
        1.5, {Attribute.JOB_STATE.value: "x"}
    )
    meter.create_gauge("size", description="Size", unit="1").record(7, {Attribute.JOB_STATE.value: "x"})
    assert watch.measured() == {("jobs", "x"): 2, ("time", "x"): 1, ("size", "x"): 7}
