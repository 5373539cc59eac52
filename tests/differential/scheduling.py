"""The moves of job schedulers; see `operations`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from tests.interop.node import NodeError
from toril import ConfigurationError, JobScheduler, SchedulerSlotError

from .operations import (
    OPERATIONS,
    NodeSide,
    Operation,
    TorilSide,
    _payload,
    _spelt,
)

__all__ = ["SCHEDULING"]

Json = Any

_SPELLING: Final = {"startDate": "start_date", "endDate": "end_date"}
_CANNOT_BE: Final = {"End date must be greater than current timestamp"}
_DURATIONS: Final = ("every", "offset")


async def node_upsert(side: NodeSide, id: str, repeat: dict[str, Json], template: dict[str, Json]) -> Json:
    told = {**template, "data": _payload(template["data"])} if "data" in template else template
    try:
        job = await side.queue.call("upsertJobScheduler", id, repeat, told)
    except NodeError as error:
        if "slot" in error.message or "already exists" in error.message:
            return "no slot"
        if error.message in _CANNOT_BE:
            return "cannot be"
        raise
    return job and (job["id"], job["name"], job["data"], job["delay"])


async def toril_upsert(side: TorilSide, id: str, repeat: dict[str, Json], template: dict[str, Json]) -> Json:
    spelt: dict[str, Json] = {
        _SPELLING.get(name, name): timedelta(milliseconds=value) if name in _DURATIONS else value
        for name, value in repeat.items()
    }
    options = _spelt(side, template.get("opts", {}))
    try:
        job = await side.queue.upsert_job_scheduler(
            id, name=template.get("name"), data=template.get("data"), options=options, **spelt
        )
    except SchedulerSlotError:
        return "no slot"
    except ConfigurationError:
        return "cannot be"
    return job and (job.id, job.name, job.data, job.delay)


async def node_remove_scheduler(side: NodeSide, id: str) -> Json:
    return await side.queue.call("removeJobScheduler", id)


async def toril_remove_scheduler(side: TorilSide, id: str) -> Json:
    return await side.queue.remove_job_scheduler(id)


async def node_schedulers(side: NodeSide, start: int, end: int, ascending: bool) -> Json:
    found = await side.queue.call("getJobSchedulers", start, end, ascending)
    return [_seen(scheduler) for scheduler in found], await side.queue.call("getJobSchedulersCount")


async def toril_schedulers(side: TorilSide, start: int, end: int, ascending: bool) -> Json:
    found = await side.queue.get_job_schedulers(start, end, ascending=ascending)
    return [_told(scheduler) for scheduler in found], await side.queue.get_job_schedulers_count()


async def node_scheduler(side: NodeSide, id: str) -> Json:
    found = await side.queue.call("getJobScheduler", id)
    return found and _seen(found)


async def toril_scheduler(side: TorilSide, id: str) -> Json:
    found = await side.queue.get_job_scheduler(id)
    return found and _told(found)


def _seen(scheduler: dict[str, Json]) -> Json:
    """What both know of a scheduler, as Node tells it."""
    template = scheduler.get("template") or {}
    names = (
        "key",
        "name",
        "next",
        "iterationCount",
        "every",
        "pattern",
        "tz",
        "limit",
        "startDate",
        "endDate",
    )
    return [scheduler.get(name) for name in names] + [template.get("data") or {}]


def _told(scheduler: JobScheduler) -> Json:
    return [
        scheduler.id,
        scheduler.name,
        scheduler.next_ms,
        scheduler.iterations,
        scheduler.every_ms,
        scheduler.pattern,
        scheduler.tz,
        scheduler.limit,
        scheduler.start_ms,
        scheduler.end_ms,
        scheduler.data or {},
    ]


SCHEDULING: Final[dict[str, Operation]] = {
    "upsert_scheduler": Operation(node_upsert, toril_upsert),
    "remove_scheduler": Operation(node_remove_scheduler, toril_remove_scheduler),
    "schedulers": Operation(node_schedulers, toril_schedulers),
    "scheduler": Operation(node_scheduler, toril_scheduler),
}

OPERATIONS.update(SCHEDULING)
