"""A job without asyncio; see `sync`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._portal import run
from .backoff import Duration
from .job import Job
from .job_children import Dependencies, DependenciesPage, DependencyCounts, DependencyKind
from .options import Parent, StoredOptions, Telemetry
from .states import FinishedState, State

__all__ = ["SyncJob"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    # So that `job: Job` is complete. Python has this from 3.13 on, and checkers have it always.
    R_co = TypeVarWithDefault("R_co", covariant=True, default=object)
else:
    R_co = TypeVar("R_co", covariant=True)


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

    @property
    def data_json(self) -> str:
        """The payload as the JSON text that is stored."""
        return self.job.data_json

    @property
    def options(self) -> StoredOptions:
        """The options as they are stored."""
        return self.job.options

    @property
    def telemetry(self) -> Telemetry:
        """The trace that it belongs to, whoever has added it."""
        return self.job.telemetry

    @property
    def timestamp(self) -> int:
        """When it was made, in epoch milliseconds."""
        return self.job.timestamp

    @property
    def delay(self) -> int:
        """How long it waits, or waited last, in milliseconds; 0 once it has been promoted."""
        return self.job.delay

    @property
    def priority(self) -> int:
        """0 for none; else 1 runs first."""
        return self.job.priority

    @property
    def attempts_made(self) -> int:
        """Attempts that have ended."""
        return self.job.attempts_made

    @property
    def attempts_started(self) -> int:
        """Attempts that have begun. It rises with each, so it can serve as a fencing number."""
        return self.job.attempts_started

    @property
    def stalled_counter(self) -> int:
        """How often its worker has fallen silent."""
        return self.job.stalled_counter

    @property
    def processed_on(self) -> int | None:
        """When its latest attempt began, in epoch milliseconds."""
        return self.job.processed_on

    @property
    def finished_on(self) -> int | None:
        """When it completed or failed for good, in epoch milliseconds."""
        return self.job.finished_on

    @property
    def processed_by(self) -> str | None:
        """The name of the worker that ran it last, if it has one."""
        return self.job.processed_by

    @property
    def deferred_failure(self) -> str | None:
        """Why the next worker fails it without running it."""
        return self.job.deferred_failure

    @property
    def scheduler_id(self) -> str | None:
        """The job scheduler that made it."""
        return self.job.scheduler_id

    @property
    def parent_key(self) -> str | None:
        """The key of the job that waits for this one."""
        return self.job.parent_key

    @property
    def parent(self) -> Parent | None:
        """The job that waits for this one, by its id and its queue."""
        return self.job.parent

    @property
    def deduplication_id(self) -> str | None:
        """What it has in common with the jobs that it stands for."""
        return self.job.deduplication_id

    @property
    def return_value_json(self) -> str | None:
        """What its processor returned, as the JSON text that is stored."""
        return self.job.return_value_json

    @property
    def stacktrace(self) -> list[str]:
        """One text per failed attempt, the oldest first."""
        return self.job.stacktrace

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait until it has ended; see `Job.result`."""
        return run(self.job.result(timeout))

    def refresh(self) -> None:
        """Read the record again; see `Job.refresh`."""
        run(self.job.refresh())

    def get_state(self) -> State:
        """Return the state that it is in now."""
        return run(self.job.get_state())

    def retry(
        self,
        state: FinishedState = "failed",
        *,
        reset_attempts_made: bool = False,
        reset_attempts_started: bool = False,
    ) -> None:
        """Run it again; see `Job.retry`."""
        run(
            self.job.retry(
                state,
                reset_attempts_made=reset_attempts_made,
                reset_attempts_started=reset_attempts_started,
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return all that was known of it when it was read; see `Job.to_json`."""
        return self.job.to_json()

    def promote(self) -> None:
        """Run it now; see `Job.promote`."""
        run(self.job.promote())

    def log(self, row: str) -> int:
        """Append to its log; see `Job.log`."""
        return run(self.job.log(row))

    def update_progress(self, progress: Any) -> None:
        """Report progress; see `Job.update_progress`."""
        run(self.job.update_progress(progress))

    def change_delay(self, delay: Duration) -> None:
        """Let a delayed job run so long from now."""
        run(self.job.change_delay(delay))

    def change_priority(self, priority: int, *, lifo: bool = False) -> None:
        """Give the job another priority; where it does not wait now, for when it waits again."""
        run(self.job.change_priority(priority, lifo=lifo))

    def clear_logs(self, keep: int = 0) -> None:
        """Forget the job's log but for the newest `keep` rows."""
        run(self.job.clear_logs(keep))

    def get_children_values(self) -> dict[str, Any]:
        """Return what the children that completed have returned, by their full keys."""
        return run(self.job.get_children_values())

    def get_dependencies(self) -> Dependencies:
        """Return the children, by how they stand, all at one moment. `get_dependencies_page` is for very many."""
        return run(self.job.get_dependencies())

    def get_dependencies_count(self) -> DependencyCounts:
        """Return how many children there are, by how they stand, all at one moment."""
        return run(self.job.get_dependencies_count())

    def get_dependencies_page(
        self, kind: DependencyKind, cursor: int = 0, count: int = 20
    ) -> DependenciesPage:
        """Return some of the children of one kind: `cursor=0` begins, then `next_cursor` until that is 0."""
        return run(self.job.get_dependencies_page(kind, cursor, count))

    def get_failed_children(self) -> list[str]:
        """Return the full keys of the children whose failure fails this job."""
        return run(self.job.get_failed_children())

    def get_ignored_children_failures(self) -> dict[str, str]:
        """Return why children failed whose failure was ignored, or let this job continue, by their full keys."""
        return run(self.job.get_ignored_children_failures())

    def is_active(self) -> bool:
        """Whether it is running."""
        return run(self.job.is_active())

    def is_completed(self) -> bool:
        """Whether it has completed."""
        return run(self.job.is_completed())

    def is_delayed(self) -> bool:
        """Whether it waits for its time."""
        return run(self.job.is_delayed())

    def is_failed(self) -> bool:
        """Whether it has failed for good."""
        return run(self.job.is_failed())

    def is_waiting(self) -> bool:
        """Whether it waits for a worker, without a priority."""
        return run(self.job.is_waiting())

    def is_waiting_children(self) -> bool:
        """Whether it waits for its children."""
        return run(self.job.is_waiting_children())

    def remove(self, *, remove_children: bool = True) -> bool:
        """Remove the job, and the jobs below it; False where a worker holds one of them: nothing has changed."""
        return run(self.job.remove(remove_children=remove_children))

    def remove_child_dependency(self) -> bool:
        """Cut this job from its parent, which no longer waits for it; False where it had none."""
        return run(self.job.remove_child_dependency())

    def remove_deduplication_key(self) -> bool:
        """Free the job's deduplication id, if the job still owns it."""
        return run(self.job.remove_deduplication_key())

    def remove_unprocessed_children(self) -> None:
        """Remove the children that have neither ended nor begun."""
        run(self.job.remove_unprocessed_children())

    def update_data(self, data: Any) -> None:
        """Replace the payload."""
        run(self.job.update_data(data))
