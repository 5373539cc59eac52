"""A job as Python sees it: what it was added with, where it stands, what it has left behind.

A `Job` is a snapshot of the record in Redis, read when it is looked at. Its verbs ask the server.
Inside a processor it also carries the worker's claim: what a worker that has lost its lock still
writes is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import options as options_module
from ._loops.reasons import kept_traces
from ._under_lock import under_lock, write_surely
from .backoff import Duration, milliseconds
from .codec import dumps, loads, read_int
from .errors import (
    ConfigurationError,
    JobFailedError,
    SerializationError,
    refusal,
)
from .job_children import JobChildren
from .limits import check_size
from .options import KeepRule, Parent, StoredOptions, Telemetry, expanded, prepare
from .scripts import Fetch, FinishedJob, Start
from .states import FinishedState, State

if TYPE_CHECKING:
    from .queue import Queue

__all__ = ["Job"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    # So that `job: Job` is complete. Python has this from 3.13 on, and checkers have it always.
    R_co = TypeVarWithDefault("R_co", covariant=True, default=object)
else:
    R_co = TypeVar("R_co", covariant=True)


class Job(JobChildren, Generic[R_co]):
    """A unit of work. `R_co` is what its processor returns.

    Attributes:
        id: Unique in its queue.
        queue: Where it lives.
        lock_ms: How long a worker's lock on it lasts; 0 for a job that was only looked at.
    """

    __slots__ = (
        "_data",
        "_on_progress",
        "_options",
        "_record",
        "_return",
        "_token",
        "id",
        "lock_ms",
        "queue",
    )

    def __init__(
        self,
        queue: Queue,
        job_id: str,
        record: dict[str, str],
        token: str = "",
        returns: Callable[[Any], Any] | None = None,
    ) -> None:
        self.id: str = job_id
        self.queue: Queue = queue
        self._record = record
        self._token = token
        self.lock_ms: int = 0
        self._return = returns
        self._data: Any = _UNREAD
        self._options: StoredOptions | None = None
        self._on_progress: Callable[[Job[Any], Any], object] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id!r} {self.name!r} in {self.queue.qualified_name!r}>"

    # What it was added with

    @property
    def name(self) -> str:
        """What kind of job this is; it chooses the processor."""
        return self._record.get("name", "")

    @property
    def data(self) -> Any:
        """The payload.

        Raises:
            SerializationError: The stored text is not JSON.
        """
        if self._data is _UNREAD:
            try:
                self._data = loads(self.data_json)
            except SerializationError as error:
                raise SerializationError(f"job {self.id!r}: {error}") from None
        return self._data

    @property
    def data_json(self) -> str:
        """The payload as the JSON text that is stored."""
        return self._record.get("data") or "{}"

    @property
    def options(self) -> StoredOptions:
        """The options as they are stored."""
        if self._options is None:
            self._options = StoredOptions.parse(self._record.get("opts", "{}"))
        return self._options

    @property
    def telemetry(self) -> Telemetry:
        """The trace that it belongs to, whoever has added it."""
        raw = self.options.raw
        metadata = raw.get("tm")
        # Node can store false.
        return Telemetry(metadata if isinstance(metadata, str) else None, bool(raw.get("omc")))

    @property
    def timestamp(self) -> int:
        """When it was made, in epoch milliseconds."""
        return self._number("timestamp") or 0

    @property
    def delay(self) -> int:
        """How long it waits, or waited last, in milliseconds; 0 once it has been promoted."""
        return self._number("delay") or 0

    @property
    def priority(self) -> int:
        """0 for none; else 1 runs first."""
        return self._number("priority") or 0

    # How it stands

    @property
    def attempts_made(self) -> int:
        """Attempts that have ended."""
        return self._number("attemptsMade") or self._number("atm") or 0

    @property
    def attempts_started(self) -> int:
        """Attempts that have begun. It rises with each, so it can serve as a fencing number."""
        return self._number("ats") or 0

    @property
    def stalled_counter(self) -> int:
        """How often its worker has fallen silent."""
        return self._number("stc") or 0

    @property
    def processed_on(self) -> int | None:
        """When its latest attempt began, in epoch milliseconds."""
        return self._number("processedOn")

    @property
    def finished_on(self) -> int | None:
        """When it completed or failed for good, in epoch milliseconds."""
        return self._number("finishedOn")

    @property
    def processed_by(self) -> str | None:
        """The name of the worker that ran it last, if it has one."""
        return self._record.get("pb")

    @property
    def deferred_failure(self) -> str | None:
        """Why the next worker fails it without running it."""
        return self._record.get("defa")

    @property
    def scheduler_id(self) -> str | None:
        """The job scheduler that made it."""
        return self._record.get("rjk")

    @property
    def parent_key(self) -> str | None:
        """The key of the job that waits for this one."""
        return self._record.get("parentKey")

    @property
    def parent(self) -> Parent | None:
        """The job that waits for this one, by its id and its queue."""
        if self.parent_key is None:
            return None
        queue, _, parent_id = self.parent_key.rpartition(":")
        return Parent(parent_id, queue)

    @property
    def deduplication_id(self) -> str | None:
        """What it has in common with the jobs that it stands for."""
        return self._record.get("deid")

    # What it leaves behind

    @property
    def progress(self) -> Any:
        """What was reported last; 0 before anything was."""
        return loads(self._record.get("progress") or "0", f"job {self.id!r}: progress")

    @property
    def return_value(self) -> R_co | None:
        """What its processor returned; None as long as it has not."""
        text = self.return_value_json
        if text is None:
            return None
        value: R_co = self._typed(loads(text, f"job {self.id!r}: return value"))
        return value

    @property
    def return_value_json(self) -> str | None:
        """What its processor returned, as the JSON text that is stored."""
        return self._record.get("returnvalue")

    @property
    def failed_reason(self) -> str | None:
        """What its last failed attempt raised. It stays when a later attempt succeeds."""
        return self._record.get("failedReason")

    @property
    def stacktrace(self) -> list[str]:
        """One text per failed attempt, the oldest first."""
        text = self._record.get("stacktrace")
        if not text:
            return []
        try:
            rows: Any = loads(text)
        except SerializationError:
            return []
        return list(map(str, rows)) if isinstance(rows, list) else []  # pyright: ignore[reportUnknownArgumentType]

    def to_json(self) -> dict[str, Any]:
        """Return all that is known of it, under the names that BullMQ's `toJSON` gives it; for logs and web APIs.

        Raises:
            SerializationError: A stored text is not JSON.
        """
        record = {
            "id": self.id,
            "name": self.name,
            "data": self.data,
            "opts": expanded(self.options.raw),
            "progress": self.progress,
            "returnvalue": self.return_value_json and loads(self.return_value_json),
            "stacktrace": self.stacktrace,
            "delay": self.delay,
            "priority": self.priority,
            "attemptsStarted": self.attempts_started,
            "attemptsMade": self.attempts_made,
            "stalledCounter": self.stalled_counter,
            "timestamp": self.timestamp,
            "queueQualifiedName": self.queue.qualified_name,
        }
        parent = self._record.get("parent")
        later = {
            "failedReason": self.failed_reason,
            "deferredFailure": self.deferred_failure,
            "finishedOn": self.finished_on,
            "processedOn": self.processed_on,
            "processedBy": self.processed_by,
            "repeatJobKey": self.scheduler_id,
            "deduplicationId": self.deduplication_id,
            "parentKey": self.parent_key,
            "parent": None if parent is None else loads(parent, f"job {self.id!r}: parent"),
        }
        return record | {name: value for name, value in later.items() if value is not None}

    # Asking and telling

    @staticmethod
    async def from_id(queue: Queue, job_id: str) -> Job[Any] | None:
        """Return a job of a queue, or None where there is none of this id; as `Queue.get_job`."""
        return await queue.get_job(job_id)

    async def refresh(self) -> None:
        """Read the record again.

        Raises:
            JobNotFoundError: It has been removed.
        """
        fresh = await self.queue.get_job_or_raise(self.id)
        self._record = fresh._record
        self._data = _UNREAD
        self._options = None

    async def get_state(self) -> State:
        """Return the state that it is in now; `unknown` if it has been removed."""
        return await self.queue.get_job_state(self.id)

    async def is_completed(self) -> bool:
        """Whether it has completed."""
        return await self.get_state() == "completed"

    async def is_failed(self) -> bool:
        """Whether it has failed for good."""
        return await self.get_state() == "failed"

    async def is_active(self) -> bool:
        """Whether it is running."""
        return await self.get_state() == "active"

    async def is_delayed(self) -> bool:
        """Whether it waits for its time."""
        return await self.get_state() == "delayed"

    async def is_waiting_children(self) -> bool:
        """Whether it waits for its children."""
        return await self.get_state() == "waiting-children"

    async def is_waiting(self) -> bool:
        """Whether it waits for a worker, without a priority."""
        return await self.get_state() == "waiting"

    async def result(self, timeout: Duration | None = None) -> R_co:
        """Wait until the job has ended, and return what its processor returned.

        Args:
            timeout: How long to wait; None waits as long as it takes.

        Raises:
            JobFailedError: It failed for good.
            JobNotFoundError: It is gone, so nobody will ever know: it was removed when it completed, or never was.
            TimeoutError: It has not ended in this time; it goes on.
        """
        seconds = None if timeout is None else milliseconds(timeout, "timeout") / 1000
        state, text = await self.queue.wait_for_end(self.id, seconds)
        if state == "failed":
            raise JobFailedError(self.id, text)
        value: R_co = self._typed(loads(text, f"job {self.id!r}: return value"))
        return value

    async def update_progress(self, progress: Any) -> None:
        """Report how far the job is: a number, or any JSON.

        In a processor it is tried again for some seconds where the connection breaks: twice is once, though the
        event may come twice.

        Raises:
            SerializationError: It is not JSON, or larger than `Limits.progress` (64 KiB).
            JobNotFoundError: The job is gone.
            LockLostError: Another worker has the job, or soon will.
            ConnectionLostError: No answer came. It may or may not have been written.
        """
        text = dumps(progress, f"job {self.id!r}: progress")
        check_size(text, self.queue.limits.progress, f"job {self.id!r}: progress", "Limits.progress")
        await write_surely(
            self, "progress", lambda: self.queue.scripts.update_progress(self.id, self._token, text)
        )
        self._record["progress"] = text
        if self._on_progress is not None:
            self._on_progress(self, progress)

    async def update_data(self, data: Any) -> None:
        """Replace the payload. In a processor it is tried again as `update_progress` is.

        Raises:
            SerializationError: It is not JSON, or larger than `Limits.data` (1 MiB).
            JobNotFoundError, LockLostError, ConnectionLostError: As `update_progress`.
        """
        text = dumps(data, f"job {self.id!r}: data")
        check_size(text, self.queue.limits.data, f"job {self.id!r}: data", "Limits.data")
        await write_surely(self, "data", lambda: self.queue.scripts.update_data(self.id, self._token, text))
        self._record["data"] = text
        self._data = _UNREAD

    async def log(self, row: str) -> int:
        """Append a row to the job's log and return how many there are.

        A row beyond `Limits.log_row` (8 KiB) is cut, and ends in `…`. The newest rows are kept, as many as the job's
        `keep_logs` says, else `Limits.log_rows` (1,000). It is not tried again where the connection breaks, since the
        row could then be there twice.

        Raises:
            JobNotFoundError, LockLostError: As `update_progress`.
            ConnectionLostError: No answer came. The row may or may not be there; calling again may write it twice.
        """
        if not isinstance(row, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"job {self.id!r}: a log row is text, got {type(row).__name__}")
        encoded = row.encode("utf-8", "replace")
        limits = self.queue.limits
        if len(encoded) > limits.log_row:
            row = encoded[: limits.log_row].decode("utf-8", "ignore") + "…"
        keep = self.options.keep_logs
        if keep is None:
            keep = limits.log_rows
        return await under_lock(self, lambda: self.queue.scripts.add_log(self.id, self._token, row, keep))

    async def retry(
        self,
        state: FinishedState = "failed",
        *,
        reset_attempts_made: bool = False,
        reset_attempts_started: bool = False,
    ) -> None:
        """Run a finished job again. Without a reset it gets one more attempt if it has used them up.

        Args:
            state: Where it is.
            reset_attempts_made: Give it all its attempts again.
            reset_attempts_started: Forget how often it was started.

        Raises:
            JobNotFoundError: It is gone.
            JobNotInStateError: It is not in this state (any more).
        """
        await self.queue.scripts.reprocess_job(
            self.id,
            state,
            lifo=self.options.lifo,
            reset_attempts_made=reset_attempts_made,
            reset_attempts_started=reset_attempts_started,
        )
        for field in ("finishedOn", "processedOn", "failedReason" if state == "failed" else "returnvalue"):
            self._record.pop(field, None)

    async def promote(self) -> None:
        """Run a delayed job now.

        Raises:
            JobNotInStateError: It is not delayed (any more).
        """
        await self.queue.scripts.promote(self.id)
        self._record["delay"] = "0"

    async def change_delay(self, delay: Duration) -> None:
        """Let a delayed job run so long from now.

        Raises:
            JobNotFoundError: It is gone.
            JobNotInStateError: It is not delayed (any more).
        """
        delay_ms = milliseconds(delay, "delay")
        await self.queue.scripts.change_delay(self.queue.clock.now_ms(), self.id, delay_ms)
        self._record["delay"] = str(delay_ms)

    async def change_priority(self, priority: int, *, lifo: bool = False) -> None:
        """Give the job another priority; where it does not wait now, for when it waits again.

        Args:
            priority: 0 for none; else 1 runs first.
            lifo: Before all others of this priority.

        Raises:
            ConfigurationError: The priority is out of range.
            JobNotFoundError: It is gone.
        """
        prepare({"priority": priority})
        await self.queue.scripts.change_priority(self.id, priority, lifo=lifo)
        self._record["priority"] = str(priority)

    async def remove(self, *, remove_children: bool = True) -> bool:
        """Remove the job, and the jobs below it; False where a worker holds one of them: nothing has changed.

        Raises:
            SchedulerJobError: It is the next run of a job scheduler; remove that.
        """
        return await self.queue.scripts.remove_job(self.id, with_children=remove_children)

    async def clear_logs(self, keep: int = 0) -> None:
        """Forget the job's log but for the newest `keep` rows."""
        key = self.queue.keys.job(self.id) + ":logs"
        if keep > 0:
            await self.queue.connection.execute("LTRIM", key, -keep, -1)
        else:
            await self.queue.connection.execute("DEL", key)

    async def remove_deduplication_key(self) -> bool:
        """Free the job's deduplication id, if the job still owns it."""
        dedup_id = self._record.get("deid")
        return dedup_id is not None and await self.queue.scripts.remove_deduplication_key(dedup_id, self.id)

    # Moves of a worker that fetches by hand; see `Worker.get_next_job`

    @property
    def token(self) -> str:
        """The proof of the worker's claim; empty for a job that was only looked at."""
        return self._token

    async def move_to_completed(self, return_value: Any = None) -> None:
        """End the job as completed.

        Raises:
            SerializationError: The return value is not JSON.
            LockLostError, JobNotFoundError, JobNotInStateError: It is this worker's no longer.
            PendingChildrenError, FailedChildrenError: Its children do not allow it; the claim is kept.
        """
        text = dumps(return_value, f"job {self.id!r}: return value")
        keep = self.options.keep_completed or KeepRule()
        await self._finish(FinishedJob(self.id, self._token, "completed", text, keep=keep))
        self.note(atm=self.attempts_made + 1, returnvalue=text)

    async def move_to_failed(self, reason: str, stacktrace: str = "") -> None:
        """End the job as failed, whatever attempts are left.

        Raises:
            LockLostError, JobNotFoundError, JobNotInStateError: It is this worker's no longer.
        """
        traces = kept_traces(self.stacktrace, stacktrace or reason, self.options.stack_trace_limit)
        keep = self.options.keep_failed or KeepRule()
        end = FinishedJob(self.id, self._token, "failed", reason, traces, self.options.attempts, keep)
        await self._finish(end)
        self.note(atm=self.attempts_made + 1, failedReason=reason, stacktrace=traces)

    async def move_to_delayed(self, delay: Duration) -> None:
        """Let the job run again after `delay`, without counting an attempt; raises as `move_to_failed`."""
        now_ms, delay_ms = self.queue.clock.now_ms(), milliseconds(delay, "delay")
        scripts = self.queue.scripts
        await under_lock(
            self, lambda: scripts.move_to_delayed(now_ms, self.id, self._token, delay_ms, counts=False)
        )

    async def move_to_wait(self) -> None:
        """Give the job back, next to run, without counting an attempt; raises as `move_to_failed`."""
        await under_lock(self, lambda: self.queue.scripts.move_to_wait(self.id, self._token))

    async def move_to_waiting_children(self, child: Job[Any] | None = None) -> bool:
        """Let the job wait for its children, or for one; False where there is nothing to wait for.

        Raises:
            FailedChildrenError: A child has failed whose failure fails this job.
            LockLostError, JobNotFoundError, JobNotInStateError: It is this worker's no longer.
        """
        child_key = "" if child is None else child.queue.keys.job(child.id)
        now_ms = self.queue.clock.now_ms()
        scripts = self.queue.scripts
        return await under_lock(
            self, lambda: scripts.move_to_waiting_children(now_ms, self.id, self._token, child_key)
        )

    async def extend_lock(self, duration: Duration) -> bool:
        """Keep the job ours for another `duration`, counted from now; False where it is ours no longer.

        A lock that has run out is taken again, as long as nobody else has taken the job.

        Raises:
            ConfigurationError: The duration cannot be.
        """
        lock_ms = milliseconds(duration, "duration")
        if lock_ms < 1:
            raise ConfigurationError(f"job {self.id!r}: a lock lasts at least a millisecond")
        scripts = self.queue.scripts
        if not await scripts.extend_locks(lock_ms, [(self.id, self._token)]):
            return True
        return not await scripts.reclaim_locks(lock_ms, [self.start])

    async def _finish(self, end: FinishedJob) -> None:
        async def finish() -> None:
            now_ms, fetch = self.queue.clock.now_ms(), Fetch(0, "0", 0)
            (code,), _ = await self.queue.scripts.move_to_finished(now_ms, [end], fetch)
            if code < 0:
                raise refusal(code, self.id, self.queue.name)

        await under_lock(self, finish)

    @property
    def start(self) -> Start:
        """Which start of the job the claim is about; for workers."""
        record = self._record
        return Start(self.id, self._token, record.get("ats", ""), record.get("processedOn", ""))

    def on_progress(self, listener: Callable[[Job[Any], Any], object]) -> None:
        """Call a function with each progress that is reported through this object; for workers."""
        self._on_progress = listener

    def note(self, **fields: object) -> None:
        """Take over what a worker has just written about the job, without reading it again."""
        for field, value in fields.items():
            self._record[field] = str(value)

    def _number(self, field: str) -> int | None:
        return read_int(self._record.get(field))

    def _typed(self, value: Any) -> Any:
        return value if self._return is None or value is None else self._return(value)


_UNREAD: Any = object()

# `options` names this class in its annotations, and must not import this module.
options_module.__dict__["Job"] = Job
