"""Queues without asyncio: the same names, for scripts and web frameworks that block.

One thread of the process runs an event loop; calls are handed to it and waited for. It is started by
the first call, also anew in a forked child, and ends with the process.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from .backoff import Duration
from .errors import ConfigurationError
from .job import Job
from .job_scheduler import JobScheduler, Missed
from .options import JobOptions
from .states import FinishedState, State

if TYPE_CHECKING:
    from .queue import NewJob, Queue
    from .queue_getters import JobLogs

__all__ = ["SyncJob", "SyncQueue", "run"]

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    # So that `job: Job` is complete. Python has this from 3.13 on, and checkers have it always.
    R_co = TypeVarWithDefault("R_co", covariant=True, default=object)
else:
    R_co = TypeVar("R_co", covariant=True)


class _Portal:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="toril-sync", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            work.close()
            raise ConfigurationError(
                "a .sync call from within a .sync call would wait for itself; await the async one"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


_portal: _Portal | None = None
_portal_lock = threading.Lock()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from a thread that has no event loop.

    Raises:
        ConfigurationError: This thread runs an event loop, which the call would block.
    """
    global _portal
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        work.close()
        raise ConfigurationError(
            ".sync blocks the event loop that is running here; await the same call without .sync"
        )
    with _portal_lock:
        if _portal is None or _portal.pid != os.getpid():
            _portal = _Portal()
        portal = _portal
    return portal.run(work)


def _after_fork() -> None:
    # A lock that another thread held at the fork would never be released in the child.
    global _portal_lock, _portal
    _portal_lock = threading.Lock()
    _portal = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SyncJob(Generic[R_co]):
    """A job without asyncio. What a `Job` knows is here under the same name; its verbs block.

    Attributes:
        job: The job itself.
    """

    def __init__(self, job: Job[R_co]) -> None:
        self.job = job

    def __repr__(self) -> str:
        return repr(self.job)

    @property
    def id(self) -> str:
        """Unique in its queue."""
        return self.job.id

    @property
    def name(self) -> str:
        """What kind of job this is."""
        return self.job.name

    @property
    def data(self) -> Any:
        """The payload."""
        return self.job.data

    @property
    def progress(self) -> Any:
        """What was reported last when the job was read."""
        return self.job.progress

    @property
    def return_value(self) -> R_co | None:
        """What its processor had returned when the job was read."""
        return self.job.return_value

    @property
    def failed_reason(self) -> str | None:
        """What its last failed attempt had raised when the job was read."""
        return self.job.failed_reason

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait until it has ended; see `Job.result`."""
        return run(self.job.result(timeout))

    def refresh(self) -> None:
        """Read the record again; see `Job.refresh`."""
        run(self.job.refresh())

    def get_state(self) -> State:
        """Return the state that it is in now."""
        return run(self.job.get_state())

    def retry(self, state: FinishedState = "failed") -> None:
        """Run it again; see `Job.retry`."""
        run(self.job.retry(state))

    def promote(self) -> None:
        """Run it now; see `Job.promote`."""
        run(self.job.promote())

    def log(self, row: str) -> int:
        """Append to its log; see `Job.log`."""
        return run(self.job.log(row))

    def update_progress(self, progress: Any) -> None:
        """Report progress; see `Job.update_progress`."""
        run(self.job.update_progress(progress))


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
        return [SyncJob(job) for job in run(self.queue.add_bulk(jobs))]

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

    def close(self) -> None:
        """Close what these calls have opened."""
        run(self.queue.close())
