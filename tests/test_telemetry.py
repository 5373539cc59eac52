"""The trace that a job belongs to, as text that toril carries and does not read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.patience import ended
from toril import ConfigurationError, FlowJob, FlowProducer, Job, JobFailedError, Queue, Telemetry, Worker

TRACE = Telemetry('{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}')


async def test_a_trace_stays_with_its_job(queue: Queue) -> None:
    """Through a bulk, a retry, and being run again by hand; the processor sees it."""
    seen: list[Telemetry] = []

    async def process(job: Job) -> None:
        seen.append(job.telemetry)
        raise ValueError

    (job,) = await queue.add_bulk([("a", None, {"telemetry": TRACE, "attempts": 2})])
    async with Worker(queue, process):
        with pytest.raises(JobFailedError):
            await job.result(timeout=20)
        await job.retry()
        with pytest.raises(JobFailedError):
            await job.result(timeout=20)
    assert seen == [TRACE] * 3
    again = await queue.get_job_or_raise(job.id)
    assert json.loads(again.options.raw["tm"]) == json.loads(TRACE.metadata or "")
    assert again.to_json()["opts"]["telemetry"] == {"metadata": TRACE.metadata}


async def test_a_trace_goes_on_with_a_schedulers_runs(queue: Queue) -> None:
    """The next run has its template's."""

    async def process(_: Job) -> None: ...

    first = await queue.upsert_job_scheduler("s", every=3600, options={"telemetry": TRACE})
    assert first is not None
    async with Worker(queue, process):
        await ended(first)
    (pending,) = await queue.get_delayed()
    assert (pending.telemetry, pending.scheduler_id) == (TRACE, "s")


async def test_jobs_of_a_flow_have_their_own(queue: Queue, server_url: str) -> None:
    """Each as it was given."""
    quiet = Telemetry(omit_context=True)
    child = FlowJob("child", "tests", options={"telemetry": quiet})
    async with FlowProducer(connection=server_url, prefix=queue.prefix) as flows:
        flow = await flows.add(FlowJob("parent", "tests", options={"telemetry": TRACE}, children=[child]))
    for job, telemetry in zip(flow, (TRACE, quiet), strict=True):
        found = await queue.get_job_or_raise(job.id)
        assert found.telemetry == telemetry
    silent = await queue.get_job_or_raise(flow.children[0].job.id)
    assert silent.telemetry.omit_context
    assert silent.options.raw["omc"] is True


async def test_a_job_without_a_trace(queue: Queue) -> None:
    """Nothing is stored; what Node stores for none is read as none."""
    job = await queue.add("a")
    assert job.telemetry == Telemetry()
    assert "tm" not in job.options.raw
    assert Job(queue, "1", {"opts": '{"tm":false,"omc":true}'}).telemetry == Telemetry(omit_context=True)


@pytest.mark.parametrize("wrong", ["00-0af", Telemetry(1), Telemetry(omit_context=2)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def test_what_is_no_trace_is_refused(queue: Queue, wrong: Any) -> None:
    """With the name of the option."""
    with pytest.raises(ConfigurationError, match="telemetry"):
        await queue.add("a", telemetry=wrong)
