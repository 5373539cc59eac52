"""Fetching one job without a worker's loops; see `Worker.get_next_job`."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from .._tracing import Tracing, traced
from ..backoff import Duration, milliseconds
from ..job import Job
from ..queue import Queue
from ..scripts import Fetch
from ..telemetry import Attribute
from .claims import Settings
from .fetching import started

__all__ = ["fetch_by_hand"]


async def fetch_by_hand(
    queue: Queue, settings: Settings, token: str | None, block: Duration | None, tracing: Tracing | None
) -> Job[Any] | None:
    """Return a job under a claim of its own; None where there is none within `block`."""
    await queue.connection.learn_time()
    fetch = Fetch(1, token or str(uuid.uuid4()), settings.lock_ms, settings.name, settings.limiter)
    until = None if block is None else asyncio.get_running_loop().time() + milliseconds(block, "block") / 1000
    while True:
        with traced(tracing, "getNextJob") as step:
            now_ms = queue.clock.now_ms()
            fetched = await queue.scripts.move_to_active(now_ms, fetch)
            step.set({Attribute.JOB_ID: fetched.jobs[0][0] if fetched.jobs else ""})
        for job_id, record in fetched.jobs:
            started(record, settings.name, now_ms)
            job: Job[Any] = Job(queue, job_id, record, fetch.token)
            job.lock_ms = settings.lock_ms
            return job
        left = 0 if until is None else until - asyncio.get_running_loop().time()
        if left <= 0:
            return None
        if fetched.due_ms:
            left = min(left, max((fetched.due_ms - queue.clock.now_ms()) / 1000, 0.002))
        lane = queue.connection.lane()
        try:
            await lane.execute("BZPOPMIN", queue.keys.key("marker"), left, timeout=left + 2)
        finally:
            await lane.close()
