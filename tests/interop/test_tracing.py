"""One trace over both languages, with `bullmq-otel` on Node's side."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.patience import ended
from tests.test_tracing import Watch, ids_of
from toril import Job, Queue, Worker
from toril.telemetry import Attribute, MetricName, SpanKind

from .node import INTEROP, server_options, why_no_node

Json = Any


async def test_one_trace_over_both_languages(server_url: str, prefix: str) -> None:
    """toril adds, Node runs and adds, toril runs: each span is below the one before, under the same names."""
    if (reason := why_no_node()) is not None:
        pytest.skip(reason)
    if not (INTEROP / "node_modules" / "bullmq-otel").is_dir():
        pytest.skip("bullmq-otel is not installed: npm ci --prefix interop")
    watch = Watch()
    there = Queue("node", connection=server_url, prefix=prefix, telemetry=watch.telemetry)
    back = Queue("toril", connection=server_url, prefix=prefix)

    async def process(_: Job) -> None: ...

    async with there, back:
        await there.add("there")
        node = await asyncio.create_subprocess_exec(
            *("node", str(INTEROP / "trace.js"), json.dumps(server_options(server_url)), prefix),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await asyncio.wait_for(node.communicate(), 60)
        (job,) = await back.get_waiting()
        async with Worker(back, process, telemetry=watch.telemetry):
            await ended(job)

    told: Json = json.loads(printed)
    spans: dict[str, Json] = {span["name"]: span for span in told["spans"]}
    added, ran = watch.span("add node.there"), watch.span("process toril")
    nodes_run, nodes_add = spans["process node"], spans["add toril.back"]
    assert nodes_run["parent"] == f"{ids_of(added).span_id:016x}"
    assert nodes_add["parent"] == nodes_run["id"]
    assert ran.parent is not None
    assert f"{ran.parent.span_id:016x}" == nodes_add["id"]
    traces = {nodes_run["trace"], nodes_add["trace"]}
    assert traces == {f"{ids_of(span).trace_id:032x}" for span in (added, ran)}
    # What Node says of a run and of an add, toril says too; what a job returned is the exception.
    assert nodes_run["attributes"].keys() - (ran.attributes or {}).keys() == set()
    assert nodes_add["attributes"].keys() == (added.attributes or {}).keys()

    names = told["names"]
    assert {name.value for name in Attribute} <= set(names["TelemetryAttributes"].values())
    ours = {MetricName.CLOCK_OFFSET}
    assert {name.value for name in MetricName if name not in ours} == set(names["MetricNames"].values())
    assert all(names["SpanKind"][kind.name] == kind for kind in SpanKind)
