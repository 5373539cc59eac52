"""Everything that toril raises, and what is true in Redis when it does.

::

    TorilError
    ├── ConfigurationError          a mistake in the program or its settings; nothing was sent
    │   └── AuthenticationError     the server refused the user or the password
    ├── ConnectionLostError         no answer; the change may or may not have happened
    │   └── ServerUnreachableError  no connection could be made; nothing has happened
    ├── ServerRefusedError          the server answered with an error of its own; nothing has happened
    │   └── ScriptForgottenError    it does not have the script (any more); toril sends it again by itself
    ├── DurabilityError             the jobs are added, and not known to be as durable as was asked
    ├── SerializationError          data that cannot be stored, or read back
    │   └── TooLargeError           data, a return value, progress or a list of jobs beyond a limit
    ├── QueueNotEmptyError          the queue has running jobs, which the verb would take away
    ├── TransitionError             a script refused to move a job, and changed nothing
    │   ├── JobNotFoundError        there is no such job
    │   ├── JobNotInStateError      the job is in another state than the move needs
    │   ├── LockLostError           the worker's claim on the job is gone, or is another worker's
    │   ├── PendingChildrenError    the job has children that have not finished
    │   ├── FailedChildrenError     the job has a child whose failure fails it
    │   ├── ParentNotFoundError     the parent that was named does not exist
    │   ├── ParentTakenError        the job already belongs to another parent
    │   ├── SchedulerJobError       the job is the pending iteration of a scheduler
    │   └── SchedulerSlotError      a job scheduler has other jobs where its next run would be
    ├── SandboxError                what a sandboxed processor raised, or how its process died
    └── JobFailedError              raised by `job.result()`: the job ended as failed

    raised by processors, to steer:
    ├── UnrecoverableError          fail now, whatever attempts are left
    ├── DelayedError                run again at a given time, without counting an attempt
    ├── WaitingError                run again as soon as may be, without counting an attempt
    ├── WaitingChildrenError        run again when the children have ended, without counting an attempt
    └── RateLimitError              run again later, and let no other job of the queue start before

Messages name the job or the queue and never carry a payload, which may be private.
"""

from __future__ import annotations

from datetime import datetime, timedelta

__all__ = [
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionLostError",
    "DelayedError",
    "DurabilityError",
    "FailedChildrenError",
    "JobFailedError",
    "JobNotFoundError",
    "JobNotInStateError",
    "LockLostError",
    "ParentNotFoundError",
    "ParentTakenError",
    "PendingChildrenError",
    "QueueNotEmptyError",
    "RateLimitError",
    "SandboxError",
    "SchedulerJobError",
    "SchedulerSlotError",
    "ScriptForgottenError",
    "SerializationError",
    "ServerRefusedError",
    "ServerUnreachableError",
    "TooLargeError",
    "TorilError",
    "TransitionError",
    "UnrecoverableError",
    "WaitingChildrenError",
    "WaitingError",
    "refusal",
]


class TorilError(Exception):
    """The root of what toril raises."""


class ConfigurationError(TorilError):
    """A mistake in the program or in its settings. Nothing was sent to the server."""


class AuthenticationError(ConfigurationError):
    """The server refused the user name or the password, or this user may not run a command."""


class ConnectionLostError(TorilError):
    """The connection broke before the answer came, or what came was none. The change may or may not have happened."""


class ServerUnreachableError(ConnectionLostError):
    """No connection could be made. Nothing has happened."""


class ServerRefusedError(TorilError):
    """The server answered with an error of its own: out of memory, read-only, loading. Nothing has happened."""


class ScriptForgottenError(ServerRefusedError):
    """The server does not have a script, e.g. after a restart. toril sends it again by itself."""


class DurabilityError(TorilError):
    """The jobs are added and will run, but it is not known that they would outlive a crash.

    Attributes:
        job_ids: Of the jobs that were added.
        durability: What was asked for: `replicated` or `fsynced`.
        reached: How many replicas, or disks, have acknowledged.
    """

    def __init__(self, where: str, job_ids: list[str], durability: str, reached: int, reason: str) -> None:
        super().__init__(where, job_ids, durability, reached, reason)
        self.job_ids = job_ids
        self.durability = durability
        self.reached = reached
        self._where = where
        self._reason = reason

    def __str__(self) -> str:
        count = len(self.job_ids)
        what = f"job {self.job_ids[0]!r} is" if count == 1 else f"{count} jobs are"
        return (
            f"{self._where}: {what} added, but not known to be {self.durability} ({self._reason}); "
            "do not add again without a job_id"
        )


class SerializationError(TorilError):
    """Data that is not JSON, or stored text that cannot be read back."""


class TooLargeError(SerializationError):
    """Data, a return value, progress, options or a list of jobs beyond a limit, see `Limits`. Nothing was stored."""


class QueueNotEmptyError(TorilError):
    """The queue has running jobs, and was not told to take them away."""


class TransitionError(TorilError):
    """A script refused to move a job, and changed nothing.

    Attributes:
        job_id: The job that stayed where it was.
        detail: What is known beyond the kind of refusal, or None.
        queue: The name of its queue, where it is known.
    """

    says = "the move was refused"

    def __init__(self, job_id: str, detail: str | None = None, queue: str | None = None) -> None:
        # What was given, not the sentence: errors cross process boundaries by being made again.
        super().__init__(job_id, detail, queue)
        self.job_id = job_id
        self.detail = detail
        self.queue = queue

    def __str__(self) -> str:
        where = f" in queue {self.queue!r}" if self.queue is not None else ""
        return f"{self._subject()}{where}: {self.detail or self.says}"

    def _subject(self) -> str:
        return f"job {self.job_id!r}"


class JobNotFoundError(TransitionError):
    """There is no such job: it never was, or it has been removed."""

    says = "not found; it was removed, or the queue name or prefix differs"


class JobNotInStateError(TransitionError):
    """The job is in another state than the move needs; somebody else has moved it."""

    says = "not in the state that this move needs; somebody has moved it on, Job.get_state() says where"


class LockLostError(TransitionError):
    """The lock ran out, and the job is another worker's, or soon will be. What this worker writes is refused."""

    says = "lock lost; a longer lock_duration keeps it while a worker is held up"


class PendingChildrenError(TransitionError):
    """The job cannot complete while it has children that have not finished."""

    says = (
        "has children that have not finished; raise WaitingChildrenError to wait for them, "
        "or call Job.remove_unprocessed_children()"
    )


class FailedChildrenError(TransitionError):
    """The job cannot complete: a child failed whose failure fails its parent."""

    says = (
        "has at least one failed child; retry that, "
        "or add it with ignore_dependency_on_failure where the parent can do without"
    )


class ParentNotFoundError(TransitionError):
    """The parent that was named for the job does not exist."""

    says = "its parent does not exist; add that first, or both as a flow"


class ParentTakenError(TransitionError):
    """The job exists already and belongs to another parent."""

    says = (
        "belongs to another parent, which still exists; Job.remove_child_dependency() lets it go, "
        "another job_id makes it another job"
    )


class SchedulerJobError(TransitionError):
    """The job is the pending iteration of a job scheduler; remove the scheduler instead."""

    says = "is the next run of a job scheduler; remove the scheduler instead"


class SchedulerSlotError(TransitionError):
    """The job scheduler has other jobs where its next run would be; nothing was planned."""

    says = "has other jobs where its next run would be; remove them, or define it again later"

    def _subject(self) -> str:
        return f"job scheduler {self.job_id.removeprefix('repeat:')!r}"


class SandboxError(TorilError):
    """A sandboxed processor has raised, or its process has died. Listeners and backoff strategies are handed it.

    Attributes:
        kind: The name of the error's type in the child; empty where the process died.
        stacktrace: Where it was raised, as text; empty likewise.
    """

    def __init__(self, reason: str, kind: str = "", stacktrace: str = "") -> None:
        super().__init__(reason, kind, stacktrace)
        self.kind = kind
        self.stacktrace = stacktrace
        self._reason = reason

    def __str__(self) -> str:
        return self._reason


class JobFailedError(TorilError):
    """The awaited job ended as failed.

    Attributes:
        job_id: The job.
        failed_reason: What its last attempt raised, as stored.
    """

    def __init__(self, job_id: str, failed_reason: str) -> None:
        super().__init__(job_id, failed_reason)
        self.job_id = job_id
        self.failed_reason = failed_reason

    def __str__(self) -> str:
        return f"job {self.job_id!r} failed: {self.failed_reason}"


class UnrecoverableError(Exception):
    """Raised by a processor: fail the job for good, whatever attempts are left."""


class DelayedError(Exception):
    """Raised by a processor: run this job again at `until`. No attempt is counted.

    Args:
        until: A point in time (naive is taken as local time), or how long from now.
    """

    def __init__(self, until: datetime | timedelta | float) -> None:
        super().__init__(until)
        self.until = until


class WaitingError(Exception):
    """Raised by a processor: run this job again as soon as may be. No attempt is counted."""

    def __init__(self, message: str = "waiting") -> None:
        super().__init__(message)


class WaitingChildrenError(Exception):
    """Raised by a processor: run this job again when its children have ended. No attempt is counted.

    Where there is nothing to wait for, it runs again at once.
    """

    def __init__(self, message: str = "waiting for children") -> None:
        super().__init__(message)


class RateLimitError(Exception):
    """Raised by a processor: a limit of somebody else is reached. No attempt is counted.

    The job is given back and, for `for_`, no job of the queue is started, as after `Queue.rate_limit`.

    Args:
        for_: For how long; None leaves the limit that is set already.
    """

    def __init__(self, for_: timedelta | float | None = None) -> None:
        super().__init__("rate limit exceeded")
        self.for_ = for_


# The numbers are BullMQ's; `scripts/includes/error_codes.lua` gives them the same names.
_REFUSALS: dict[int, type[TransitionError]] = {
    -1: JobNotFoundError,
    -2: LockLostError,
    -3: JobNotInStateError,
    -4: PendingChildrenError,
    -5: ParentNotFoundError,
    -6: LockLostError,
    -7: ParentTakenError,
    -8: SchedulerJobError,
    -9: FailedChildrenError,
    -10: SchedulerSlotError,
    -11: SchedulerSlotError,
}


def refusal(code: int, job_id: str, queue: str | None = None) -> TransitionError:
    """Return the error for a script's negative answer about a job of a queue."""
    return _REFUSALS.get(code, TransitionError)(job_id, queue=queue)
