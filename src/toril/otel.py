"""OpenTelemetry for toril's spans and measurements: `Queue("emails", telemetry=OpenTelemetry())`.

It needs `pip install toril[otel]`, which is OpenTelemetry's API alone; where spans go is a matter of the SDK that the
program sets up. Without one, everything here does nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from typing import Any, Final, cast

from .errors import ConfigurationError
from .telemetry import Attributes, SpanKind

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.propagators.textmap import TextMapPropagator
except ModuleNotFoundError as error:  # pragma: no cover
    raise ConfigurationError("toril.otel needs OpenTelemetry's API: pip install 'toril[otel]'") from error

__all__ = ["OpenTelemetry"]

_KINDS: Final = {kind: trace.SpanKind[kind.name] for kind in SpanKind}


class OpenTelemetry:
    """What `Queue`, `FlowProducer` and `Worker` take as `telemetry`.

    Args:
        name: Of the instrumentation scope of spans and instruments.
        tracer_provider: Without it the global one.
        meter_provider: Without it the global one.
        enable_metrics: Measure; else there are spans only.
        propagator: Puts the context into jobs and back; without it the global one, which speaks W3C Trace Context.
    """

    def __init__(
        self,
        name: str = "toril",
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        enable_metrics: bool = True,
        propagator: TextMapPropagator | None = None,
    ) -> None:
        self.tracer: _Tracer = _Tracer(trace.get_tracer(name, tracer_provider=tracer_provider))
        self.context_manager: _ContextManager = _ContextManager(propagator)
        self.meter: _Meter | None = (
            _Meter(metrics.get_meter(name, meter_provider=meter_provider)) if enable_metrics else None
        )

    def __repr__(self) -> str:
        return f"<OpenTelemetry, {'spans and metrics' if self.meter else 'spans'}>"


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set_on_context(self, context: Any) -> Any:
        return trace.set_span_in_context(self._span, context)

    def set_attributes(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes) -> None:
        self._span.add_event(name, attributes)

    def record_exception(self, error: BaseException) -> None:
        self._span.record_exception(error)
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))

    def end(self) -> None:
        self._span.end()


class _Tracer:
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start_span(self, name: str, *, kind: SpanKind, attributes: Attributes, context: Any) -> _Span:
        return _Span(self._tracer.start_span(name, context, _KINDS[kind], attributes))


class _ContextManager:
    def __init__(self, propagator: TextMapPropagator | None) -> None:
        self._propagator = propagator

    def active(self) -> Any:
        return contexts.get_current()

    def root(self) -> Any:
        return contexts.Context()

    @contextlib.contextmanager
    def attached(self, context: Any) -> Generator[None]:
        token = contexts.attach(context)
        try:
            yield
        finally:
            contexts.detach(token)

    def get_metadata(self, context: Any) -> str:
        carrier: dict[str, str] = {}
        self._speaks().inject(carrier, context)  # pyright: ignore[reportArgumentType]
        return json.dumps(carrier, separators=(",", ":")) if carrier else ""

    def from_metadata(self, context: Any, metadata: str) -> Any:
        try:
            carrier: object = json.loads(metadata)
        except ValueError:
            return context
        if not isinstance(carrier, dict):
            return context
        fields = cast("dict[str, Any]", carrier)
        texts = {name: value for name, value in fields.items() if isinstance(value, str)}
        return self._speaks().extract(texts, context)

    def _speaks(self) -> TextMapPropagator:
        return self._propagator or propagate.get_global_textmap()


class _Recorder:
    """A histogram or a gauge, which OpenTelemetry's differ in nothing but the name of the verb."""

    def __init__(self, record: Any) -> None:
        self._record = record

    def record(self, value: float, attributes: Attributes) -> None:
        self._record(value, attributes)


class _Meter:
    def __init__(self, meter: metrics.Meter) -> None:
        self._meter = meter
        # The SDK wants each to be made once, however many queues and workers ask.
        self._made: dict[str, Any] = {}

    def create_counter(self, name: str, *, description: str, unit: str) -> metrics.Counter:
        if name not in self._made:
            self._made[name] = self._meter.create_counter(name, unit, description)
        counter: metrics.Counter = self._made[name]
        return counter

    def create_histogram(self, name: str, *, description: str, unit: str) -> _Recorder:
        if name not in self._made:
            self._made[name] = _Recorder(self._meter.create_histogram(name, unit, description).record)
        recorder: _Recorder = self._made[name]
        return recorder

    def create_gauge(self, name: str, *, description: str, unit: str) -> _Recorder:
        if name not in self._made:
            self._made[name] = _Recorder(self._meter.create_gauge(name, unit, description).set)
        recorder: _Recorder = self._made[name]
        return recorder
