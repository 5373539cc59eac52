// A worker of the queue `node` that is watched by bullmq-otel: it runs one job, adds one to the queue `toril` meanwhile,
// and prints its spans, and the names that BullMQ has for what spans and metrics say. `node trace.js OPTIONS PREFIX`, with the server's options as JSON.

import { context, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { MetricNames, Queue, SpanKind, TelemetryAttributes, Worker } from 'bullmq';
import { BullMQOtel } from 'bullmq-otel';

const [, , options, prefix] = process.argv;
const exporter = new InMemorySpanExporter();
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));

const shared = { connection: JSON.parse(options), prefix, telemetry: new BullMQOtel('interop') };
const back = new Queue('toril', shared);
const worker = new Worker('node', () => back.add('back', {}), { ...shared, autorun: false });
worker.on('completed', () => worker.close());
await worker.run();
await back.close();

const spans = exporter.getFinishedSpans().map((span) => ({
  name: span.name,
  trace: span.spanContext().traceId,
  id: span.spanContext().spanId,
  parent: span.parentSpanContext?.spanId ?? null,
  attributes: span.attributes,
}));
console.log(JSON.stringify({ spans, names: { MetricNames, SpanKind, TelemetryAttributes } }));
