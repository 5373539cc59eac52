"""Job schedulers: what makes a job again and again, by a cron pattern or an interval.

A scheduler is a record that keeps exactly one pending job, its next run. There is no timer: whichever worker starts
that job, in Python or in Node, adds the following one first (`plan_next_run`). Workers also look for schedulers whose
pending job is gone, and mend them (`mend_job_schedulers`).

`Queue` has the verbs; the times of cron patterns are in `_cron`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from ._answers import ask, ask_all
from ._insisting import add_surely
from ._repeating import RepeatStrategy, next_fire
from ._scheduler_checks import (
    LEGACY,
    LEGACY_ID,
    check,
    check_id,
    checked_name,
    date_ms,
    interval,
    template_of,
    whole,
)
from ._shown import shown
from ._tracing import NoStep, Tracing, traced, with_metadata
from .backoff import Duration, milliseconds
from .clock import Clock
from .codec import dumps, loads, pairs, read_int
from .connection import Connection
from .errors import ConfigurationError, SerializationError
from .job import Job
from .keys import QueueKeys
from .limits import Limits, check_size
from .options import JobOptions
from .scripts import NextRun, Scripts
from .telemetry import Attribute, SpanKind

if TYPE_CHECKING:
    from .queue import Queue

__all__ = ["JobScheduler", "JobSchedulers", "Missed", "mend_job_schedulers", "plan_next_run"]

Missed = Literal["skip", "once", "all"]
"""What becomes of runs whose time passed while no worker was there.

The run that was pending is always done, late. `skip`, as in BullMQ: the others are not. `once`: if there were others,
the last of them is made up for. `all`: all of them are, one after another.
"""

_MISSED: Final[dict[str, Missed]] = {"skip": "skip", "once": "once", "all": "all"}
# How many schedulers one call looks at.
_MOST_PER_LOOK: Final = 100

logger = logging.getLogger("toril.scheduler")


class LegacyRepeatError(ConfigurationError):
    """A job belongs to a repeatable job of BullMQ 5 instead of a job scheduler."""


@dataclass(frozen=True, slots=True)
class JobScheduler:
    """A job scheduler as it stands in the queue.

    Attributes:
        id: Unique among the queue's schedulers.
        name: Of its jobs.
        next_ms: When its pending job is due, in epoch milliseconds. One that has come to its end keeps its last run.
        iterations: How many runs have been planned, the pending one included.
        every_ms: The interval, or None for a pattern.
        pattern: The cron pattern, or None for an interval.
        tz: The pattern's time zone; None, which Node can leave, is each worker's own.
        limit: The most runs; None for any number.
        start_ms: No run before; epoch milliseconds, or None.
        end_ms: No run after; epoch milliseconds, or None.
        offset_ms: Where in the interval the runs are.
        missed: What becomes of missed runs.
        data: Of its jobs.
        options: Of its jobs, under BullMQ's names.
    """

    id: str
    name: str
    next_ms: int
    iterations: int = 0
    every_ms: int | None = None
    pattern: str | None = None
    tz: str | None = None
    limit: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    offset_ms: int | None = None
    missed: Missed = "skip"
    data: Any = None
    options: Mapping[str, Any] | None = None

    @staticmethod
    def from_record(scheduler_id: str, next_ms: int, record: Mapping[str, str]) -> JobScheduler:
        """Read a scheduler's record, whoever wrote it."""
        return JobScheduler(
            id=scheduler_id,
            name=record.get("name", scheduler_id),
            next_ms=next_ms,
            iterations=read_int(record.get("ic")) or 0,
            every_ms=read_int(record.get("every")),
            pattern=record.get("pattern"),
            tz=record.get("tz"),
            limit=read_int(record.get("limit")),
            start_ms=read_int(record.get("startDate")),
            end_ms=read_int(record.get("endDate")),
            offset_ms=read_int(record.get("offset")),
            missed=_MISSED.get(record.get("missed", ""), "skip"),
            data=loads(record.get("data", "{}"), f"job scheduler {scheduler_id!r}: data"),
            options=loads(record.get("opts", "{}"), f"job scheduler {scheduler_id!r}: options"),
        )

    def repeat(self) -> dict[str, Any]:
        """Return the repeat options that its jobs carry, without their count."""
        return {
            name: value
            for name, value in (
                ("every", self.every_ms),
                ("pattern", self.pattern),
                ("tz", self.tz),
                ("limit", self.limit),
                ("startDate", self.start_ms),
                ("endDate", self.end_ms),
                ("offset", self.offset_ms or None),
            )
            if value is not None
        }


class JobSchedulers:
    """The verbs of a queue that concern its job schedulers."""

    keys: QueueKeys
    connection: Connection
    scripts: Scripts
    clock: Clock
    default_job_options: Mapping[str, Any]
    repeat_strategy: RepeatStrategy | None
    limits: Limits
    tracing: Tracing | None

    async def upsert_job_scheduler(
        self,
        scheduler_id: str,
        *,
        every: Duration | None = None,
        pattern: str | None = None,
        tz: str | None = None,
        limit: int | None = None,
        start_date: datetime | int | None = None,
        end_date: datetime | int | None = None,
        offset: Duration | None = None,
        immediately: bool = False,
        name: str | None = None,
        data: Any = None,
        options: JobOptions | None = None,
        missed: Missed = "skip",
    ) -> Job[Any] | None:
        """Make a job scheduler, or replace its whole definition; return its pending job.

        It can be called at any time, e.g. whenever a worker starts: a pending job that has not begun is replaced, one
        with the same interval keeps its time, and nothing runs early or twice for it. Another interval begins anew.
        An overdue run of a pattern gives way to the next, as in BullMQ, unless `missed` says to make up for it.

        Args:
            scheduler_id: Unique in the queue.
            every: The interval between runs; the first is due at once, unless a start or an offset says otherwise.
            pattern: A cron pattern of five fields, or six with the seconds first, in the dialect of Node's parser; or
                whatever the queue's `repeat_strategy` reads.
            tz: The time zone of the pattern, as 'Europe/Stockholm'; 'UTC' without it.
            limit: The most runs.
            start_date: No run before; a datetime (naive is local time), or epoch milliseconds.
            end_date: No run after, likewise. As in BullMQ it ends the planning: the last run of an interval, planned
                before, can lie beyond it.
            offset: Where in the interval the runs are, counted from the Unix epoch.
            immediately: Let the first run of a pattern be due now.
            name: Of the jobs; without it the scheduler's id.
            data: Of the jobs; any JSON.
            options: Of the jobs, see `JobOptions`.
            missed: What becomes of runs that are missed; see `Missed`. Node workers skip them always.

        Returns:
            The pending job; None where a pattern fires no more before its end, and nothing has changed.

        Raises:
            ConfigurationError: Something cannot be; says what.
            SerializationError: The data is not JSON.
            SchedulerSlotError: Other jobs of this scheduler stand where its next run would; nothing has changed.
            ServerUnreachableError: No connection; nothing has changed.
            ConnectionLostError: No answer, although it was asked for for some seconds; it is safe to repeat.
        """
        where = f"job scheduler {shown(scheduler_id)} in queue {self.keys.queue!r}"
        check_id(scheduler_id, where)
        await self.connection.learn_time()
        now_ms = self.clock.now_ms()
        definition = JobScheduler(
            id=scheduler_id,
            name=checked_name(name or scheduler_id, where),
            next_ms=0,
            every_ms=None if every is None else interval(every, where),
            pattern=pattern,
            tz=(tz or "UTC") if pattern is not None else tz,
            limit=None if limit is None else whole(limit, where),
            start_ms=None if start_date is None else date_ms(start_date, f"{where}: start_date"),
            end_ms=None if end_date is None else date_ms(end_date, f"{where}: end_date"),
            offset_ms=None if offset is None else milliseconds(offset, f"{where}: offset"),
            missed=missed,
        )
        check(definition, immediately, now_ms, where, is_cron=self.repeat_strategy is None)
        text = dumps({} if data is None else data, f"{where}: data")
        check_size(text, self.limits.data, f"{where}: data", "Limits.data")
        template = template_of(options, self.default_job_options, where)
        check_size(dumps(template), self.limits.options, f"{where}: options", "Limits.options")
        next_ms: int | None = None
        if definition.pattern is not None:
            try:
                next_ms = now_ms if immediately else next_fire(definition, now_ms, self.repeat_strategy)
            except ConfigurationError as error:
                raise ConfigurationError(f"{where}: {error}") from None
            if next_ms is None:
                return None
        run = _next_run(scheduler_id, template, {**definition.repeat(), "count": 1}, now_ms, next_ms)
        fields = _fields(definition, text, template)
        times = (definition.every_ms, definition.offset_ms, definition.start_ms)
        with _planned(self.tracing, scheduler_id, definition.name) as step:
            run = run._replace(options=with_metadata(run.options, step.metadata))
            upsert = (now_ms, scheduler_id, run, definition.name, text, fields)
            # Whether or not it was heard, the same again leaves one pending job.
            job_id, delay_ms = await add_surely(
                lambda _: self.scripts.upsert_job_scheduler(*upsert, *times),
                where,
                remedy="it is safe to upsert it again",
            )
            step.set({Attribute.JOB_ID: job_id})
        added: dict[str, Any] = {"jobId": job_id, "delay": delay_ms}
        if definition.pattern is not None:
            added["prevMillis"] = int(job_id.rpartition(":")[2])
        record = {
            "name": definition.name,
            "data": text,
            "opts": f"{run.options[:-1]},{dumps(added)[1:]}",
            "timestamp": str(now_ms),
            "delay": str(delay_ms),
            "priority": str(run.priority),
            "rjk": scheduler_id,
        }
        return Job(cast("Queue", self), job_id, record)

    async def remove_job_scheduler(self, scheduler_id: str) -> bool:
        """End a job scheduler; False where there is none of this id.

        Its pending job goes with it, unless its time has come: what waits for a worker already is still run.
        """
        return await self.scripts.remove_job_scheduler(scheduler_id)

    async def get_job_scheduler(self, scheduler_id: str) -> JobScheduler | None:
        """Return a job scheduler, or None where there is none of this id."""
        record, score = await ask_all(
            self.connection,
            tuple[list[str], Any],
            [
                ("HGETALL", self.keys.key(f"repeat:{scheduler_id}")),
                ("ZSCORE", self.keys.key("repeat"), scheduler_id),
            ],
        )
        return (
            None
            if score is None
            else JobScheduler.from_record(scheduler_id, read_int(score) or 0, pairs(record))
        )

    async def get_job_schedulers(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[JobScheduler]:
        """Return job schedulers by the time of their next run.

        Args:
            start: The first position, from 0.
            end: The last position, included; -1 is the very last.
            ascending: The next to run first; else last.
        """
        command = "ZRANGE" if ascending else "ZREVRANGE"
        listed = await ask(
            self.connection, list[str], command, self.keys.key("repeat"), start, end, "WITHSCORES"
        )
        planned = pairs(listed)
        if not planned:
            return []
        records = await ask_all(
            self.connection,
            list[list[str]],
            [("HGETALL", self.keys.key(f"repeat:{scheduler_id}")) for scheduler_id in planned],
        )
        return [
            JobScheduler.from_record(scheduler_id, read_int(next_ms) or 0, pairs(record))
            for (scheduler_id, next_ms), record in zip(planned.items(), records, strict=True)
        ]

    async def get_job_schedulers_count(self) -> int:
        """Return how many job schedulers the queue has."""
        return await ask(self.connection, int, "ZCARD", self.keys.key("repeat"))


async def plan_next_run(queue: Queue, job: Job[Any], tracing: Tracing | None = None) -> str | None:
    """Add the run that follows a scheduler's job, which starts now; return its id.

    Returns None where none follows: the limit or the end is reached, the scheduler is gone or was replaced, or this
    run has been started before. It is safe to repeat.

    Raises:
        LegacyRepeatError: No scheduler planned it, but a repeatable job of BullMQ 5. It can run; nothing follows.
        ConfigurationError: The pattern or the time zone means nothing here. Nothing was planned.
    """
    scheduler_id = job.scheduler_id
    repeat = job.options.raw.get("repeat")
    if scheduler_id is None or not isinstance(repeat, dict):
        return None
    key = queue.keys.key(f"repeat:{scheduler_id}")
    count, missed = await ask(queue.connection, tuple[Any, Any], "HMGET", key, "ic", "missed")
    if count is None and LEGACY_ID.fullmatch(scheduler_id):
        raise LegacyRepeatError(f"queue {queue.name!r}: {LEGACY.format(scheduler_id)}")
    fields = {name: str(value) for name, value in cast("dict[str, Any]", repeat).items() if value is not None}
    planned = read_int(job.id.rpartition(":")[2])
    definition = JobScheduler.from_record(
        scheduler_id, planned or 0, {**fields, "name": job.name, "missed": missed or "skip"}
    )
    run = _following(
        definition,
        job.options.raw,
        (read_int(fields.get("count")) or 0) + 1,
        queue.clock.now_ms(),
        strategy=queue.repeat_strategy,
    )
    if run is None:
        return None
    now_ms, next_run = run
    with _planned(tracing, scheduler_id, job.name) as step:
        # A scheduler's runs are one trace: what this one has is what the next one gets.
        next_run = next_run._replace(options=with_metadata(next_run.options, step.metadata))
        added = await queue.scripts.update_job_scheduler(
            now_ms, scheduler_id, next_run, producer_id=job.id, every=definition.every_ms
        )
        step.set({Attribute.JOB_ID: added or ""})
    return added or None


def _planned(tracing: Tracing | None, scheduler_id: str, name: str) -> NoStep:
    about = {Attribute.JOB_SCHEDULER_ID: scheduler_id}
    return traced(tracing, "add", about, SpanKind.PRODUCER, target=name)


async def mend_job_schedulers(queue: Queue) -> list[str]:
    """Give schedulers whose pending job is gone their next run again; return their ids.

    A run that had not begun when it was lost is planned again; else the next follows by the scheduler's policy.
    Schedulers that have come to their end are left alone.
    """
    mended: list[str] = []
    first = 0
    while True:
        seen, idle = await queue.scripts.find_idle_job_schedulers(first, _MOST_PER_LOOK)
        for scheduler_id, planned in idle:
            try:
                if await _mend(queue, scheduler_id, planned):
                    mended.append(scheduler_id)
            except (ConfigurationError, SerializationError) as error:
                logger.error("queue %r: job scheduler %r cannot go on: %s", queue.name, scheduler_id, error)
        if seen < _MOST_PER_LOOK:
            return mended
        first += seen


async def _mend(queue: Queue, scheduler_id: str, planned: str) -> bool:
    key = queue.keys.key(f"repeat:{scheduler_id}")
    record, last = await ask_all(
        queue.connection,
        tuple[list[str], tuple[Any, Any]],
        [("HGETALL", key), ("HMGET", f"{key}:{planned}", "opts", "finishedOn")],
    )
    planned_ms = read_int(planned) or 0
    definition = JobScheduler.from_record(scheduler_id, planned_ms, pairs(record))
    now_ms = queue.clock.now_ms()
    options: Mapping[str, Any] = definition.options or {}
    count = definition.iterations + 1
    is_unrun = planned_ms > now_ms and last[1] is None
    if last[0] is not None:
        options = loads(last[0], f"job scheduler {scheduler_id!r}: options of its last job")
        is_unrun = last[1] is None
        repeat = options.get("repeat")
        repeat = cast("dict[str, Any]", repeat) if isinstance(repeat, dict) else {}
        count = (read_int(repeat.get("count")) or definition.iterations) + (not is_unrun)
    elif is_unrun:
        count = definition.iterations
    run = _following(definition, options, count, now_ms, strategy=queue.repeat_strategy, same_again=is_unrun)
    if run is None:
        return False
    now_ms, next_run = run
    added = await queue.scripts.update_job_scheduler(
        now_ms, scheduler_id, next_run, planned_ms=planned, every=definition.every_ms
    )
    if added:
        logger.warning(
            "queue %r: job scheduler %r had no pending job; its next is %r", queue.name, scheduler_id, added
        )
    return bool(added)


def _following(
    scheduler: JobScheduler,
    options: Mapping[str, Any],
    count: int,
    now_ms: int,
    *,
    strategy: RepeatStrategy | None,
    same_again: bool = False,
) -> tuple[int, NextRun] | None:
    """What follows the run that was planned for `next_ms`: (now, run); None where it was the last."""
    if scheduler.limit is not None and count > scheduler.limit:
        return None
    # Runs to be made up for belong to the time before the end, whatever time it is now.
    reference = scheduler.next_ms if scheduler.missed == "all" else now_ms
    if scheduler.end_ms is not None and reference > scheduler.end_ms:
        return None
    next_ms: int | None = None
    if scheduler.pattern is not None:
        next_ms = scheduler.next_ms if same_again else next_fire(scheduler, now_ms, strategy)
        if next_ms is None:
            return None
    elif scheduler.every_ms is None:
        return None
    stored = {**options, "attempts": options.get("attempts", 0)}
    if isinstance(stored.get("backoff"), (int, float)):
        stored["backoff"] = {"type": "fixed", "delay": stored["backoff"]}
    known = stored.get("repeat")
    repeat = {
        **(cast("dict[str, Any]", known) if isinstance(known, dict) else scheduler.repeat()),
        "count": count,
    }
    return now_ms, _next_run(scheduler.id, stored, repeat, now_ms, next_ms)


def _next_run(
    scheduler_id: str,
    template: Mapping[str, Any],
    repeat: Mapping[str, Any],
    now_ms: int,
    next_ms: int | None,
) -> NextRun:
    """A run's options: its template's, and where it comes from. What depends on its time is added by the script."""
    raw = {name: value for name, value in template.items() if name not in {"jobId", "delay", "prevMillis"}}
    raw |= {"repeat": repeat, "timestamp": now_ms, "repeatJobKey": scheduler_id}
    priority = raw.get("priority")
    return NextRun(
        next_ms,
        dumps(raw, f"job scheduler {scheduler_id!r}: options"),
        priority if isinstance(priority, int) else 0,
        bool(raw.get("lifo")),
    )


def _fields(scheduler: JobScheduler, data: str, template: Mapping[str, Any]) -> list[str]:
    """The record: names and values in turn. What is not set is absent, since Node tests for presence."""
    fields = {"name": scheduler.name, **{k: str(v) for k, v in scheduler.repeat().items() if k != "offset"}}
    if data != "{}":
        fields["data"] = data
    if template:
        fields["opts"] = dumps(template)
    if scheduler.missed != "skip":
        fields["missed"] = scheduler.missed
    return [part for pair in fields.items() for part in pair]
