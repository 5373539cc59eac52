"""The verbs of a queue that concern all of it, or jobs by their id: pause, limit, drain, clean, obliterate.

`Queue` has all of it; see `queue`. Verbs that touch many jobs go in bounded steps, so that the queue can be used
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from ._answers import ask
from ._shown import shown
from ._tracing import Tracing, traced
from .backoff import Duration, milliseconds
from .clock import Clock
from .codec import MAX_SAFE_INTEGER, dumps, read_int
from .connection import Connection
from .errors import (
    ConfigurationError,
    ConnectionLostError,
    QueueNotEmptyError,
    ServerRefusedError,
    ServerUnreachableError,
)
from .job import Job
from .keys import QueueKeys
from .options import prepare
from .queue_getters import checked_states, moment_ms
from .scripts import Scripts
from .states import KEY_OF_STATE, FinishedState, State
from .telemetry import Attribute

if TYPE_CHECKING:
    from .queue import Queue

__all__ = ["QueueVerbs", "escaped", "orphan_candidates", "positive_count"]

# The most jobs that one step of a bulk verb looks at.
_MOST_PER_STEP: Final = 1_000
_MOST_PER_CLEAN: Final = 10_000


class QueueVerbs:
    """What can be done to a queue as a whole."""

    keys: QueueKeys
    connection: Connection
    scripts: Scripts
    clock: Clock
    tracing: Tracing | None

    @property
    def name(self) -> str:
        """The name that producers and workers share."""
        return self.keys.queue

    # Opening and closing

    async def pause(self) -> None:
        """Let no worker fetch from this queue until `resume`. Running jobs go on, jobs can be added."""
        with traced(self.tracing, "pause"):
            await self.scripts.pause("pause")

    async def resume(self) -> None:
        """Let workers fetch again."""
        with traced(self.tracing, "resume"):
            left = await self.scripts.pause("resume")
            while left > 0:
                left = await self.scripts.pause("continue")

    # Getting ready

    async def wait_until_ready(self, timeout: Duration | None = None) -> None:
        """Wait until the server answers. No other verb needs this; they connect by themselves, and fail at once.

        Args:
            timeout: How long to wait; None waits as long as it takes.

        Raises:
            ServerUnreachableError: It has not answered in this time.
            AuthenticationError: It refuses the user or the password, which waiting does not mend.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + milliseconds(timeout, "timeout") / 1000
        wait = 0.05
        while True:
            try:
                await self.connection.execute("PING")
                return
            except (ConnectionLostError, ServerRefusedError) as error:
                left = None if until is None else until - loop.time()
                if left is not None and left <= 0:
                    if isinstance(error, ServerUnreachableError):
                        raise
                    raise ServerUnreachableError(str(error)) from error
            await asyncio.sleep(wait if left is None else min(wait, left))
            wait = min(wait * 2, 1.0)

    # Limits

    async def set_global_concurrency(self, concurrency: int) -> None:
        """Let no more than so many jobs of this queue run at once, over all workers."""
        positive_count(concurrency, f"queue {self.name!r}: concurrency")
        await self.connection.execute("HSET", self.keys.key("meta"), "concurrency", concurrency)

    async def get_global_concurrency(self) -> int | None:
        """Return how many jobs may run at once over all workers; None for any number."""
        value = await self.connection.execute("HGET", self.keys.key("meta"), "concurrency")
        return read_int(value) or None

    async def remove_global_concurrency(self) -> None:
        """Let any number of jobs run at once."""
        await self.connection.execute("HDEL", self.keys.key("meta"), "concurrency")

    async def is_maxed(self) -> bool:
        """Whether as many jobs run as the global concurrency allows."""
        most = await self.get_global_concurrency()
        return most is not None and await ask(self.connection, int, "LLEN", self.keys.key("active")) >= most

    async def set_global_rate_limit(self, most: int, duration: Duration) -> None:
        """Let no more than `most` jobs of this queue start per `duration`, over all workers."""
        positive_count(most, f"queue {self.name!r}: the rate limit")
        window = milliseconds(duration, "rate limit duration")
        if window < 1:
            raise ConfigurationError(f"queue {self.name!r}: the rate limit's duration must be at least 1 ms")
        await self.connection.execute("HSET", self.keys.key("meta"), "max", most, "duration", window)

    async def get_global_rate_limit(self) -> tuple[int, float] | None:
        """Return (jobs, seconds) of the rate limit over all workers; None where there is none."""
        key = self.keys.key("meta")
        most, window = await ask(self.connection, tuple[Any, Any], "HMGET", key, "max", "duration")
        jobs = read_int(most)
        return (jobs, (read_int(window) or 0) / 1000) if jobs else None

    async def remove_global_rate_limit(self) -> None:
        """Let jobs start at any rate."""
        await self.connection.execute("HDEL", self.keys.key("meta"), "max", "duration")

    async def rate_limit(self, duration: Duration) -> None:
        """Let no job start for so long. Workers obey if they, or the queue, have any rate limit."""
        window = milliseconds(duration, "rate limit duration")
        with traced(self.tracing, "rateLimit", {Attribute.QUEUE_RATE_LIMIT: window}):
            if window:
                await self.connection.execute("SET", self.keys.key("limiter"), MAX_SAFE_INTEGER, "PX", window)

    async def get_rate_limit_ttl(self, most: int | None = None) -> float:
        """Return for how many seconds the rate limit closes the queue; 0 when it does not."""
        return max(await self.scripts.get_rate_limit_ttl(most), 0) / 1000

    async def remove_rate_limit_key(self) -> None:
        """Let jobs start at once, although the limit of this window is used up."""
        await self.connection.execute("DEL", self.keys.key("limiter"))

    # Removing, and moving many

    async def remove(self, job_id: str, *, remove_children: bool = True) -> bool:
        """Remove a job, and the jobs below it; False where a worker holds one of them, and nothing has changed.

        Raises:
            SchedulerJobError: It is the next run of a job scheduler.
        """
        options = dumps({"removeChildren": remove_children})
        with traced(self.tracing, "remove", {Attribute.JOB_ID: job_id, Attribute.JOB_OPTIONS: options}):
            return await self.scripts.remove_job(job_id, with_children=remove_children)

    async def drain(self, *, delayed: bool = False) -> int:
        """Remove all jobs that wait, and delayed ones if asked; return how many. Schedulers keep their next run.

        It goes in steps of 1,000, so the queue can be used meanwhile.
        """
        with traced(self.tracing, "drain", {Attribute.QUEUE_DRAIN_DELAY: delayed}):
            return await self._drain(delayed)

    async def _drain(self, delayed: bool) -> int:
        removed = 0
        for state in ("wait", "paused", "prioritized", *(("delayed",) if delayed else ())):
            spared = 0
            while True:
                some, more_spared = await self.scripts.drain(state, spared, _MOST_PER_STEP)
                removed += some
                spared += more_spared
                if some + more_spared == 0:
                    break
        return removed

    async def clean(self, grace: Duration, limit: int = 0, state: State = "completed") -> list[str]:
        """Remove jobs of a state that are older than `grace`; return their ids.

        Args:
            grace: How old they must be.
            limit: About how many at most; 0 for all.
            state: Which. Active ones go only if no worker holds them.

        Raises:
            ConfigurationError: The state or the limit is none.
        """
        if limit:
            positive_count(limit, f"queue {self.name!r}: the limit of clean, where it is not 0,")
        (checked,) = checked_states((state,))
        if checked == "waiting-children":
            raise ConfigurationError(
                f"queue {self.name!r}: jobs that wait for children are not cleaned; remove them"
            )
        grace_ms = milliseconds(grace, "grace")
        about = {
            Attribute.QUEUE_GRACE: grace_ms,
            Attribute.JOB_TYPE: checked,
            Attribute.QUEUE_CLEAN_LIMIT: limit,
        }
        with traced(self.tracing, "clean", about) as step:
            removed = await self._clean(checked, self.clock.now_ms() - grace_ms, limit)
            step.set({Attribute.QUEUE_CLEAN_COUNT: len(removed)})
        return removed

    async def _clean(self, state: State, before_ms: int, limit: int) -> list[str]:
        step = min(limit, _MOST_PER_CLEAN) if limit else _MOST_PER_CLEAN
        removed: list[str] = []
        spared = 0
        while True:
            looked, some = await self.scripts.clean(KEY_OF_STATE[state], before_ms, step, spared)
            removed += some
            # As BullMQ does it, who is spared uses up the limit; without one, all are looked at.
            spared += looked - len(some)
            if looked < step or (limit and (spared or len(removed) >= limit)):
                return removed

    async def obliterate(self, *, force: bool = False, count: int = _MOST_PER_STEP) -> None:
        """Remove the queue and all it has. It is paused first, and goes in steps of `count` jobs.

        What may stay are the receipts of adds (`<prefix>:<queue>:toril:add:*`), by which producers recognise calls of
        theirs whose answers were lost. They expire by themselves within five minutes.

        Args:
            force: Although jobs are running.
            count: How many jobs one step removes.

        Raises:
            QueueNotEmptyError: Jobs are running, and `force` was not given; the queue is paused.
        """
        positive_count(count, f"queue {self.name!r}: count")
        with traced(self.tracing, "obliterate"):
            await self._obliterate(force, count)

    async def _obliterate(self, force: bool, count: int) -> None:
        await self.pause()
        while True:
            answer = await self.scripts.obliterate(count, force=force)
            if answer == -2:
                raise QueueNotEmptyError(
                    f"queue {self.name!r} has jobs that are running; stop its workers, or obliterate(force=True)"
                )
            if answer == -1:
                await self.pause()
            elif answer == 0:
                return

    async def retry_jobs(
        self, state: FinishedState = "failed", *, count: int = 1000, before: datetime | None = None
    ) -> int:
        """Run all jobs of a finished state again, in steps of `count`; return how many. Priorities are forgotten.

        Args:
            state: Which.
            count: How many one step moves.
            before: Only those that ended by then.
        """
        if state not in ("failed", "completed"):
            raise ConfigurationError(
                f"queue {self.name!r}: retry_jobs runs 'failed' or 'completed' jobs again, not {state!r}"
            )
        until_ms = (
            self.clock.now_ms() if before is None else moment_ms(before, f"queue {self.name!r}: before")
        )
        options = dumps({"state": state, "count": count})
        with traced(self.tracing, "retryJobs", {Attribute.QUEUE_OPTIONS: options}):
            return await self._move_to_wait(state, count, until_ms)

    async def promote_jobs(self, *, count: int = 1000) -> int:
        """Run all delayed jobs now, in steps of `count`; return how many. Priorities are forgotten."""
        with traced(self.tracing, "promoteJobs", {Attribute.QUEUE_OPTIONS: dumps({"count": count})}):
            return await self._move_to_wait("delayed", count, 0)

    async def _move_to_wait(self, state: State, count: int, until_ms: int) -> int:
        positive_count(count, f"queue {self.name!r}: count")
        moved = 0
        while True:
            some = await self.scripts.move_jobs_to_wait(state, count, until_ms)
            moved += some
            if some < count:
                return moved

    async def remove_orphaned_jobs(self, count: int = 1000, limit: int | None = None) -> int:
        """Remove records that no state knows, as a crash of another client may leave; return how many.

        Args:
            count: How many keys are looked at per step.
            limit: About how many to remove at most.
        """
        positive_count(count, f"queue {self.name!r}: count")
        removed, cursor = 0, 0
        pattern = escaped(self.keys.base) + "*"
        while True:
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", count)
            cursor, keys = await ask(self.connection, tuple[int, list[str]], *scan)
            candidates = orphan_candidates(self.keys.base, keys)
            if candidates:
                removed += await self.scripts.remove_orphaned_jobs(candidates)
            if cursor == 0 or (limit is not None and removed >= limit):
                return removed

    async def trim_events(self, most: int) -> int:
        """Keep about the newest `most` events; return how many were removed."""
        with traced(self.tracing, "trimEvents", {Attribute.QUEUE_EVENT_MAX_LENGTH: most}):
            return await ask(self.connection, int, "XTRIM", self.keys.key("events"), "MAXLEN", "~", most)

    async def remove_deprecated_priority_key(self) -> bool:
        """Remove a helper key that BullMQ 3 and 4 kept for priorities; False where there is none."""
        return bool(await self.connection.execute("DEL", self.keys.key("priority")))

    async def update_job_progress(self, job_id: str, progress: Any) -> None:
        """Report how far a job is, without reading it; raises as `Job.update_progress`."""
        with traced(self.tracing, "updateJobProgress", {Attribute.JOB_ID: job_id}):
            await Job(cast("Queue", self), job_id, {}).update_progress(progress)

    async def add_job_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        """Append a row to a job's log without reading the job; return how many there are.

        Args:
            job_id: Whose log.
            row: Text; what is too long is cut.
            keep_logs: How many of the newest rows are kept; without it as many as `Limits.log_rows` says.

        Raises:
            JobNotFoundError: There is no such job.
            ConfigurationError: `keep_logs` is no such number.
        """
        options = "{}" if keep_logs is None else prepare({"keep_logs": keep_logs}).stored
        return await Job(cast("Queue", self), job_id, {"opts": options}).log(row)

    async def get_deduplication_job_id(self, deduplication_id: str) -> str | None:
        """Return the job that owns a deduplication id now."""
        owner: str | None = await self.connection.execute("GET", self.keys.key(f"de:{deduplication_id}"))
        return owner

    async def remove_deduplication_key(self, deduplication_id: str) -> bool:
        """Free a deduplication id, whoever owns it; False where nobody did."""
        return await self.scripts.remove_deduplication_key(deduplication_id)


def escaped(text: str) -> str:
    """Return text so that it stands for itself in a pattern of the server."""
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in text)


# Suffixes of keys that are no jobs, and what hangs off a job's key.
_NO_JOBS: Final = frozenset(
    [
        "active",
        "wait",
        "waiting-children",
        "paused",
        "id",
        "delayed",
        "prioritized",
        "stalled-check",
        "completed",
        "failed",
        "stalled",
        "repeat",
        "limiter",
        "meta",
        "events",
        "pc",
        "marker",
        "de",
        "dn",
        "metrics",
        "delay",
        "priority",
        "toril",
    ]
)
_OF_JOBS: Final = frozenset(["logs", "dependencies", "processed", "failed", "unsuccessful", "lock"])


def orphan_candidates(base: str, keys: Iterable[str]) -> list[str]:
    """Return the ids of jobs that keys of a queue may belong to."""
    ids: dict[str, None] = {}
    for key in keys:
        head, colon, tail = key[len(base) :].partition(":")
        if head not in _NO_JOBS and (not colon or tail in _OF_JOBS):
            ids[head] = None
    return list(ids)


def positive_count(count: int, what: str) -> None:
    """Refuse what is no whole number, or none that counts anything.

    Raises:
        ConfigurationError: It is such.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_SAFE_INTEGER:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"{what} must be a whole number, at least 1 and below 2^53; got {shown(count)}"
        )
