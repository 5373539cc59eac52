"""Every change of a job's state: one Lua file a transition, one typed method a file.

The methods turn Python's values into the text that the scripts take, and negative answers into
errors. Scripts that take lists answer each member apart; their refusals are returned, not raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import refusal
from ..keys import QueueKeys
from ..options import KeepRule
from ..states import FinishedState
from .loader import Executor, Script, load

__all__ = ["Executor", "Fetch", "Fetched", "FinishedJob", "NewRecord", "Scripts"]


class NewRecord(NamedTuple):
    """A job to be added, as text.

    Attributes:
        job_id: Empty for a generated one.
        data: JSON.
        options: JSON, with BullMQ's names.
        timestamp: Epoch milliseconds.
        delay_ms: From the timestamp.
    """

    job_id: str
    name: str
    data: str
    options: str
    timestamp: int
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False


class FinishedJob(NamedTuple):
    """The end of an active job.

    Attributes:
        value: The return value as JSON, or the failed reason as raw text.
        stacktrace: JSON list of stack traces; empty for a completed job.
    """

    job_id: str
    token: str
    target: FinishedState
    value: str
    stacktrace: str = ""
    attempts: int = 0
    keep: KeepRule = KeepRule()


class Fetch(NamedTuple):
    """How a worker asks for jobs.

    Attributes:
        want: How many at most.
        token: The value of the locks; `0` takes none.
        limit: Rate limit of this worker: (starts, window in ms).
    """

    want: int
    token: str
    lock_ms: int
    worker: str = ""
    limit: tuple[int, int] | None = None

    def args(self) -> tuple[Any, ...]:
        """Return the arguments in the order in which the scripts take them."""
        most, window = self.limit or ("", "")
        return (self.want, self.token, self.lock_ms, self.worker, most, window)


class Fetched(NamedTuple):
    """The answer to a fetch.

    Attributes:
        jobs: (id, record) each; the record as it was before the start.
        limit_ttl_ms: How long a rate limit still lasts; 0 for none.
        due_ms: When the next delayed job is due, where there was nothing else; else 0.
        is_closed: Paused, or as many jobs active as the queue allows.
    """

    jobs: list[tuple[str, dict[str, str]]]
    limit_ttl_ms: int
    due_ms: float
    is_closed: bool


class Scripts:
    """The transitions of one queue, over one connection.

    Args:
        keys: The queue.
        executor: What sends the commands.
    """

    def __init__(self, keys: QueueKeys, executor: Executor) -> None:
        self._keys = keys
        self._base = keys.base
        self._executor = executor
        self._bound: dict[tuple[str, str], tuple[Script, tuple[str, ...]]] = {}

    async def add_job(self, jobs: Sequence[NewRecord]) -> list[str]:
        """Add jobs; return their ids in the same order. An id that is taken adds nothing."""
        args: list[Any] = []
        for job in jobs:
            args += job[:7]
            args.append("1" if job.lifo else "")
        ids: list[str] = await self._run("add_job", _ADD_JOB, *args)
        return ids

    async def move_to_active(self, now_ms: int, fetch: Fetch) -> Fetched:
        """Fetch up to `fetch.want` jobs and lock them."""
        answer = await self._run("move_to_active", _MOVE_TO_ACTIVE, now_ms, *fetch.args())
        return _fetched(answer, 0)

    async def move_to_finished(
        self, now_ms: int, finished: Iterable[FinishedJob], fetch: Fetch
    ) -> tuple[list[int], Fetched]:
        """End jobs, and fetch others in the same call.

        Returns:
            Per finished job 0 or a negative refusal, which has changed nothing; and the answer to the fetch.
        """
        args: list[Any] = []
        for job in finished:
            args += job[:6]
            args += (job.keep.count, job.keep.age, job.keep.limit)
        answer = await self._run("move_to_finished", _MOVE_TO_FINISHED, now_ms, *fetch.args(), *args)
        return answer[0], _fetched(answer, 1)

    async def retry_job(
        self, now_ms: int, job_id: str, token: str, failed_reason: str, stacktrace: str, *, lifo: bool = False
    ) -> None:
        """Run a failed attempt again at once.

        Raises:
            JobNotFoundError, LockLostError, JobNotInStateError: See `errors`.
        """
        answer = await self._run(
            "retry_job", _RETRY_JOB, now_ms, job_id, token, "1" if lifo else "", failed_reason, stacktrace
        )
        _raise_if_refused(answer, job_id)

    async def move_to_delayed(
        self,
        now_ms: int,
        job_id: str,
        token: str,
        delay_ms: int,
        *,
        counts: bool,
        failed_reason: str = "",
        stacktrace: str = "",
    ) -> None:
        """Let an active job run later; `counts` says whether this was an attempt.

        Raises:
            JobNotFoundError, LockLostError, JobNotInStateError: See `errors`.
        """
        answer = await self._run(
            "move_to_delayed",
            _MOVE_TO_DELAYED,
            now_ms,
            job_id,
            token,
            delay_ms,
            "1" if counts else "0",
            failed_reason,
            stacktrace,
        )
        _raise_if_refused(answer, job_id)

    async def move_to_wait(self, job_id: str, token: str) -> int:
        """Give an active job back, uncounted; return how many ms a rate limit still lasts.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        answer: int = await self._run("move_to_wait", _MOVE_TO_WAIT, job_id, token)
        _raise_if_refused(answer, job_id)
        return answer

    async def move_stalled_jobs_to_wait(self, now_ms: int, max_stalled: int, interval_ms: int) -> list[str]:
        """Take back jobs whose worker has fallen silent; return their ids."""
        taken_back: list[str] = await self._run(
            "move_stalled_jobs_to_wait", _MOVE_STALLED_JOBS_TO_WAIT, now_ms, max_stalled, interval_ms
        )
        return taken_back

    async def extend_locks(self, lock_ms: int, held: Iterable[tuple[str, str]]) -> list[str]:
        """Keep (id, token) jobs ours; return the ids of those that are ours no longer."""
        parts = (part for pair in held for part in pair)
        lost: list[str] = await self._run("extend_locks", _EXTEND_LOCKS, lock_ms, *parts)
        return lost

    async def adopt_jobs(self, token: str) -> list[tuple[str, dict[str, str]]]:
        """Return the active jobs that hold this token: (id, record) each."""
        return _records(await self._run("adopt_jobs", _ADOPT_JOBS, token), 0)

    async def promote(self, job_id: str) -> None:
        """Make a delayed job runnable now.

        Raises:
            JobNotInStateError: It is not delayed.
        """
        _raise_if_refused(await self._run("promote", _PROMOTE, job_id), job_id)

    async def reprocess_job(
        self,
        job_id: str,
        state: FinishedState,
        *,
        lifo: bool = False,
        reset_attempts_made: bool = False,
        reset_attempts_started: bool = False,
    ) -> None:
        """Run a finished job again.

        Raises:
            JobNotFoundError, JobNotInStateError: See `errors`.
        """
        answer = await self._run(
            "reprocess_job",
            (state, *_REPROCESS_JOB),
            job_id,
            state,
            *("1" if flag else "" for flag in (lifo, reset_attempts_made, reset_attempts_started)),
        )
        _raise_if_refused(answer, job_id)

    async def pause(self, action: str) -> int:
        """`pause` or `resume` the queue; return how many ids of an old version are left to `continue` with."""
        left: int = await self._run("pause", _PAUSE, action, is_bare=True)
        return left

    async def update_progress(self, job_id: str, token: str, progress: str) -> None:
        """Write progress, as JSON. An empty token is somebody who is not the job's worker.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        answer = await self._run("update_progress", _UPDATE_PROGRESS, job_id, token, progress)
        _raise_if_refused(answer, job_id)

    async def update_data(self, job_id: str, token: str, data: str) -> None:
        """Replace a job's data, as JSON. An empty token is somebody who is not the job's worker.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        _raise_if_refused(await self._run("update_data", _UPDATE_DATA, job_id, token, data), job_id)

    async def add_log(self, job_id: str, token: str, row: str, keep: int | None) -> int:
        """Append a row to a job's log; return how many rows there are.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        answer: int = await self._run("add_log", _ADD_LOG, job_id, token, row, "" if keep is None else keep)
        _raise_if_refused(answer, job_id)
        return answer

    async def get_state(self, job_id: str) -> str:
        """Return the name of the state that a job is in, `unknown` where it is in none."""
        state: str = await self._run("get_state", _GET_STATE, job_id, is_bare=True)
        return state

    async def _run(self, name: str, suffixes: tuple[str, ...], *args: Any, is_bare: bool = False) -> Any:
        bound = self._bound.get((name, suffixes[0]))
        if bound is None:
            bound = (load(name), tuple(self._base + suffix for suffix in suffixes))
            self._bound[name, suffixes[0]] = bound
        script, keys = bound
        if is_bare:
            return await script.run(self._executor, keys, *args)
        return await script.run(self._executor, keys, self._base, *args)


# The keys of each script, in the order of its header. A test holds the two together.
_FETCH_TAIL = ("pc", "marker", "meta", "limiter", "events")
_ADD_JOB = ("id", "wait", "prioritized", "delayed", "active", "pc", "marker", "meta", "events")
_MOVE_TO_ACTIVE = ("wait", "active", "prioritized", "delayed", *_FETCH_TAIL)
_MOVE_TO_FINISHED = (
    "wait",
    "active",
    "prioritized",
    "delayed",
    "completed",
    "failed",
    "stalled",
    *_FETCH_TAIL,
)
_RETRY_JOB = ("wait", "active", "prioritized", "delayed", "stalled", "pc", "marker", "meta", "events")
_MOVE_TO_DELAYED = ("active", "delayed", "stalled", "marker", "meta", "events")
_MOVE_TO_WAIT = ("wait", "active", "prioritized", "stalled", "marker", "meta", "limiter", "events")
_MOVE_STALLED_JOBS_TO_WAIT = (
    "stalled",
    "wait",
    "active",
    "stalled-check",
    "meta",
    "marker",
    "repeat",
    "events",
)
_EXTEND_LOCKS = ("stalled",)
_ADOPT_JOBS = ("active",)
_PROMOTE = ("delayed", "wait", "active", "prioritized", "pc", "marker", "meta", "events")
_REPROCESS_JOB = ("wait", "active", "prioritized", "pc", "marker", "meta", "events")
_PAUSE = ("meta", "marker", "wait", "paused", "prioritized", "delayed", "events")
_UPDATE_PROGRESS = ("meta", "events")
_UPDATE_DATA = ("meta",)
_ADD_LOG = ("meta",)
_GET_STATE = (
    "completed",
    "failed",
    "delayed",
    "prioritized",
    "active",
    "wait",
    "paused",
    "waiting-children",
)


def _raise_if_refused(answer: int, job_id: str) -> None:
    if answer < 0:
        raise refusal(answer, job_id)


def _fetched(answer: list[Any], at: int) -> Fetched:
    return Fetched(_records(answer, at + 3), answer[at], float(answer[at + 1]), answer[at + 2] == 1)


def _records(answer: list[Any], at: int) -> list[tuple[str, dict[str, str]]]:
    jobs: list[tuple[str, dict[str, str]]] = []
    for i in range(at, len(answer), 2):
        fields = iter(answer[i + 1])
        jobs.append((answer[i], dict(zip(fields, fields, strict=True))))
    return jobs
