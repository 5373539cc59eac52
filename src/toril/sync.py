"""Queues without asyncio: the same names, for scripts and web frameworks that block.

One thread of the process runs an event loop; calls are handed to it and waited for, see `_portal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Unpack

from ._portal import run
from .backoff import Duration
from .job_scheduler import JobScheduler, Missed
from .options import JobOptions
from .states import FinishedState, State
from .sync_job import SyncJob

if TYPE_CHECKING:
    from .queue import NewJob, Queue
    from .queue_getters import DependenciesRange, JobLogs, Metrics

__all__ = ["SyncJob", "SyncQueue", "run"]


class SyncQueue:
    """A queue without asyncio; see `Queue` for what each verb promises.

    Attributes:
        queue: The queue itself.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def __repr__(self) -> str:
        return repr(self.queue)

    def add(self, name: str, data: Any = None, /, **options: Unpack[JobOptions]) -> SyncJob[Any]:
        """Add a job."""
        return SyncJob(run(self.queue.add(name, data, **options)))

    def add_bulk(
        self, jobs: Iterable[NewJob | tuple[str, Any] | tuple[str, Any, JobOptions]]
    ) -> list[SyncJob[Any]]:
        """Add many jobs."""
        # A generator runs here and not in the loop's thread: it may block, or make calls like these itself.
        return [SyncJob(job) for job in run(self.queue.add_bulk(list(jobs)))]

    def get_job(self, job_id: str) -> SyncJob[Any] | None:
        """Return a job, or None."""
        job = run(self.queue.get_job(job_id))
        return None if job is None else SyncJob(job)

    def get_job_state(self, job_id: str) -> State:
        """Return the state of a job."""
        return run(self.queue.get_job_state(job_id))

    def get_job_counts(self, *states: State) -> dict[State, int]:
        """Return how many jobs there are per state."""
        return run(self.queue.get_job_counts(*states))

    def record_job_counts_metric(self, *states: State) -> dict[State, int]:
        """Return what `get_job_counts` does, and tell the meter of the queue's `telemetry`, if it has one."""
        return run(self.queue.record_job_counts_metric(*states))

    def get_jobs(
        self,
        states: State | Iterable[State] | None = None,
        start: int = 0,
        end: int = -1,
        *,
        ascending: bool = False,
    ) -> list[SyncJob[Any]]:
        """Return jobs of one or several states."""
        return [SyncJob(job) for job in run(self.queue.get_jobs(states, start, end, ascending=ascending))]

    def get_job_logs(self, job_id: str, start: int = 0, end: int = -1, *, ascending: bool = True) -> JobLogs:
        """Return rows of a job's log."""
        return run(self.queue.get_job_logs(job_id, start, end, ascending=ascending))

    def upsert_job_scheduler(
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
    ) -> SyncJob[Any] | None:
        """Make a job scheduler, or replace its definition; return its pending job."""
        job = run(
            self.queue.upsert_job_scheduler(
                scheduler_id,
                every=every,
                pattern=pattern,
                tz=tz,
                limit=limit,
                start_date=start_date,
                end_date=end_date,
                offset=offset,
                immediately=immediately,
                name=name,
                data=data,
                options=options,
                missed=missed,
            )
        )
        return None if job is None else SyncJob(job)

    def remove_job_scheduler(self, scheduler_id: str) -> bool:
        """End a job scheduler; False where there is none of this id."""
        return run(self.queue.remove_job_scheduler(scheduler_id))

    def get_job_scheduler(self, scheduler_id: str) -> JobScheduler | None:
        """Return a job scheduler, or None."""
        return run(self.queue.get_job_scheduler(scheduler_id))

    def get_job_schedulers(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[JobScheduler]:
        """Return job schedulers by the time of their next run."""
        return run(self.queue.get_job_schedulers(start, end, ascending=ascending))

    def get_job_schedulers_count(self) -> int:
        """Return how many job schedulers there are."""
        return run(self.queue.get_job_schedulers_count())

    def pause(self) -> None:
        """Let no worker fetch."""
        run(self.queue.pause())

    def resume(self) -> None:
        """Let workers fetch again."""
        run(self.queue.resume())

    def is_paused(self) -> bool:
        """Whether the queue is paused."""
        return run(self.queue.is_paused())

    # The rest of a queue's verbs, in their order

    def add_job_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        """Append a row to a job's log without reading the job; return how many there are."""
        return run(self.queue.add_job_log(job_id, row, keep_logs))

    def clean(self, grace: Duration, limit: int = 0, state: State = "completed") -> list[str]:
        """Remove jobs of a state that are older than `grace`; return their ids."""
        return run(self.queue.clean(grace, limit, state))

    def count(self) -> int:
        """Return how many jobs have yet to run: waiting, prioritized, delayed, and those waiting for children."""
        return run(self.queue.count())

    def drain(self, *, delayed: bool = False) -> int:
        """Remove all jobs that wait, and delayed ones if asked; return how many. Schedulers keep their next run."""
        return run(self.queue.drain(delayed=delayed))

    def export_prometheus_metrics(self, labels: Mapping[str, str] | None = None) -> str:
        """Return counts per state and of ended jobs as Prometheus reads them, under BullMQ's names."""
        return run(self.queue.export_prometheus_metrics(labels))

    def get_active(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[SyncJob[Any]]:
        """Return jobs that are running."""
        return [SyncJob(job) for job in run(self.queue.get_active(start, end, ascending=ascending))]

    def get_active_count(self) -> int:
        """Return how many jobs are running."""
        return run(self.queue.get_active_count())

    def get_completed(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[SyncJob[Any]]:
        """Return jobs that have completed and are kept."""
        return [SyncJob(job) for job in run(self.queue.get_completed(start, end, ascending=ascending))]

    def get_completed_count(self) -> int:
        """Return how many jobs have completed and are kept."""
        return run(self.queue.get_completed_count())

    def get_counts_per_priority(self, priorities: Iterable[int]) -> dict[int, int]:
        """Return how many jobs wait with each of these priorities; 0 counts those without one."""
        return run(self.queue.get_counts_per_priority(priorities))

    def get_deduplication_job_id(self, deduplication_id: str) -> str | None:
        """Return the job that owns a deduplication id now."""
        return run(self.queue.get_deduplication_job_id(deduplication_id))

    def get_delayed(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[SyncJob[Any]]:
        """Return jobs that wait for their time."""
        return [SyncJob(job) for job in run(self.queue.get_delayed(start, end, ascending=ascending))]

    def get_delayed_count(self, before: datetime | None = None) -> int:
        """Return how many jobs wait for their time; with `before`, those that are due by then."""
        return run(self.queue.get_delayed_count(before))

    def get_dependencies(
        self, parent_id: str, kind: Literal["processed", "pending"], start: int = 0, end: int = -1
    ) -> DependenciesRange:
        """Return children of a job by their positions, with their jobs where they are in this queue."""
        return run(self.queue.get_dependencies(parent_id, kind, start, end))

    def get_failed(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[SyncJob[Any]]:
        """Return jobs that have failed for good and are kept."""
        return [SyncJob(job) for job in run(self.queue.get_failed(start, end, ascending=ascending))]

    def get_failed_count(self) -> int:
        """Return how many jobs have failed for good and are kept."""
        return run(self.queue.get_failed_count())

    def get_global_concurrency(self) -> int | None:
        """Return how many jobs may run at once over all workers; None for any number."""
        return run(self.queue.get_global_concurrency())

    def get_global_rate_limit(self) -> tuple[int, float] | None:
        """Return (jobs, seconds) of the rate limit over all workers; None where there is none."""
        return run(self.queue.get_global_rate_limit())

    def get_ids(self, state: State, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[str]:
        """Return ids of a state's jobs."""
        return run(self.queue.get_ids(state, start, end, ascending=ascending))

    def get_job_count_by_types(self, *states: State) -> int:
        """Return how many jobs there are in these states together; without any, in all of them."""
        return run(self.queue.get_job_count_by_types(*states))

    def get_job_or_raise(self, job_id: str) -> SyncJob[Any]:
        """Return a job."""
        return SyncJob(run(self.queue.get_job_or_raise(job_id)))

    def get_meta(self) -> dict[str, str]:
        """Return the settings that stand in Redis, under BullMQ's names."""
        return run(self.queue.get_meta())

    def get_metrics(self, state: FinishedState, start: int = 0, end: int = -1) -> Metrics:
        """Return how many jobs ended so, per minute, the newest first. Workers collect it if they are told to."""
        return run(self.queue.get_metrics(state, start, end))

    def get_prioritized(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[SyncJob[Any]]:
        """Return jobs that wait for a worker, with a priority."""
        return [SyncJob(job) for job in run(self.queue.get_prioritized(start, end, ascending=ascending))]

    def get_prioritized_count(self) -> int:
        """Return how many jobs wait for a worker, with a priority."""
        return run(self.queue.get_prioritized_count())

    def get_queue_events(self) -> list[dict[str, str]]:
        """Return the connections of those who listen to this queue's events, Node's among them."""
        return run(self.queue.get_queue_events())

    def get_rate_limit_ttl(self, most: int | None = None) -> float:
        """Return for how many seconds the rate limit closes the queue; 0 when it does not."""
        return run(self.queue.get_rate_limit_ttl(most))

    def get_version(self) -> str | None:
        """Return which library has set the queue up, as `bullmq:6.7.0`; None where only toril has used it."""
        return run(self.queue.get_version())

    def get_waiting(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[SyncJob[Any]]:
        """Return jobs that wait for a worker, without a priority."""
        return [SyncJob(job) for job in run(self.queue.get_waiting(start, end, ascending=ascending))]

    def get_waiting_children(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[SyncJob[Any]]:
        """Return jobs that wait for their children."""
        return [SyncJob(job) for job in run(self.queue.get_waiting_children(start, end, ascending=ascending))]

    def get_waiting_children_count(self) -> int:
        """Return how many jobs wait for their children."""
        return run(self.queue.get_waiting_children_count())

    def get_waiting_count(self) -> int:
        """Return how many jobs wait for a worker, without a priority."""
        return run(self.queue.get_waiting_count())

    def get_workers(self) -> list[dict[str, str]]:
        """Return the connections of this queue's workers, Node's among them, as CLIENT LIST shows them."""
        return run(self.queue.get_workers())

    def get_workers_count(self) -> int:
        """Return how many workers this queue has, Node's among them."""
        return run(self.queue.get_workers_count())

    def is_maxed(self) -> bool:
        """Whether as many jobs run as the global concurrency allows."""
        return run(self.queue.is_maxed())

    def obliterate(self, *, force: bool = False, count: int = 1000) -> None:
        """Remove the queue and all it has; receipts of adds expire within five minutes. See `Queue.obliterate`."""
        run(self.queue.obliterate(force=force, count=count))

    def promote_jobs(self, *, count: int = 1000) -> int:
        """Run all delayed jobs now, in steps of `count`; return how many. Priorities are forgotten."""
        return run(self.queue.promote_jobs(count=count))

    def rate_limit(self, duration: Duration) -> None:
        """Let no job start for so long. Workers obey if they, or the queue, have any rate limit."""
        run(self.queue.rate_limit(duration))

    def remove(self, job_id: str, *, remove_children: bool = True) -> bool:
        """Remove a job, and the jobs below it; False where a worker holds one of them, and nothing has changed."""
        return run(self.queue.remove(job_id, remove_children=remove_children))

    def remove_deduplication_key(self, deduplication_id: str) -> bool:
        """Free a deduplication id, whoever owns it; False where nobody did."""
        return run(self.queue.remove_deduplication_key(deduplication_id))

    def remove_deprecated_priority_key(self) -> bool:
        """Remove a helper key that BullMQ 3 and 4 kept for priorities; False where there is none."""
        return run(self.queue.remove_deprecated_priority_key())

    def remove_global_concurrency(self) -> None:
        """Let any number of jobs run at once."""
        run(self.queue.remove_global_concurrency())

    def remove_global_rate_limit(self) -> None:
        """Let jobs start at any rate."""
        run(self.queue.remove_global_rate_limit())

    def remove_orphaned_jobs(self, count: int = 1000, limit: int | None = None) -> int:
        """Remove records that no state knows, as a crash of another client may leave; return how many."""
        return run(self.queue.remove_orphaned_jobs(count, limit))

    def remove_rate_limit_key(self) -> None:
        """Let jobs start at once, although the limit of this window is used up."""
        run(self.queue.remove_rate_limit_key())

    def retry_jobs(
        self, state: FinishedState = "failed", *, count: int = 1000, before: datetime | None = None
    ) -> int:
        """Run all jobs of a finished state again, in steps of `count`; return how many. Priorities are forgotten."""
        return run(self.queue.retry_jobs(state, count=count, before=before))

    def set_global_concurrency(self, concurrency: int) -> None:
        """Let no more than so many jobs of this queue run at once, over all workers."""
        run(self.queue.set_global_concurrency(concurrency))

    def set_global_rate_limit(self, most: int, duration: Duration) -> None:
        """Let no more than `most` jobs of this queue start per `duration`, over all workers."""
        run(self.queue.set_global_rate_limit(most, duration))

    def trim_events(self, most: int) -> int:
        """Keep about the newest `most` events; return how many were removed."""
        return run(self.queue.trim_events(most))

    def update_job_progress(self, job_id: str, progress: Any) -> None:
        """Report how far a job is, without reading it; raises as `Job.update_progress`."""
        run(self.queue.update_job_progress(job_id, progress))

    def close(self) -> None:
        """Close what these calls have opened."""
        run(self.queue.close())
