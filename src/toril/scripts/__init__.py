"""Every change of a job's state: one Lua file a transition, one typed method a file.

The methods turn Python's values into the text that the scripts take, and negative answers into
errors. Scripts that take lists answer each member apart; their refusals are returned, not raised.
What goes in and comes out is in `values.py`, which keys a script is given in `keysets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from msgspec import msgpack

from .._answers import nonsense, understood
from ..codec import dumps
from ..errors import refusal
from ..keys import QueueKeys
from ..states import FinishedState
from . import keysets
from .keysets import ADD_JOB, RELEASE_PARENTS
from .loader import Executor, Script, load
from .values import Fetch, Fetched, FinishedJob, NewRecord, NextRun, Receipt, Start

__all__ = [
    "ADD_JOB",
    "RELEASE_PARENTS",
    "Executor",
    "Fetch",
    "Fetched",
    "FinishedJob",
    "NewRecord",
    "NextRun",
    "Receipt",
    "Scripts",
    "Start",
    "load",
]

_NO_RECEIPT = Receipt()
# What reading an answer of another shape raises. To look at its shape first would cost something for each job.
_NOT_UNDERSTOOD: Final = (TypeError, ValueError, LookupError)

T = TypeVar("T")


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

    async def add_job(self, jobs: Sequence[NewRecord], receipt: Receipt = _NO_RECEIPT) -> list[str | int]:
        """Add jobs; return their ids in the same order, or a negative refusal.

        An id that is taken adds nothing, and a deduplicated job is answered with the one that stands for it.
        """
        args = self.add_job_args(jobs, receipt)
        ids: list[str | int] = await self._run("add_job", ADD_JOB, *args)
        return ids

    def add_job_command(self, jobs: Sequence[NewRecord], receipt: Receipt) -> tuple[Any, ...]:
        """Return the call as a command, for a sender of its own."""
        script, keys = self._bind("add_job", ADD_JOB)
        return ("EVALSHA", script.sha, len(keys), *keys, self._base, *self.add_job_args(jobs, receipt))

    @staticmethod
    def add_job_args(jobs: Sequence[NewRecord], receipt: Receipt = _NO_RECEIPT) -> list[Any]:
        """Return the arguments behind the base."""
        args: list[Any] = [receipt.slot, receipt.call, "1" if receipt.is_repeat else "", 2]
        options, timestamp = (jobs[0].options, jobs[0].timestamp) if jobs else ("", "")
        args += (options, timestamp)
        for job in jobs:
            if job.options != options or job.timestamp != timestamp or not _only_waits(job):
                break
            args += (job.name, job.data)
        else:
            return args
        # Not all of them have that in common, or one does more than wait: all of them say what they do.
        is_plain = all(map(_only_waits, jobs))
        args[3:] = [4 if is_plain else 9]
        for job in jobs:
            args += (job.name, job.data, job.options, job.timestamp)
            if not is_plain:
                args += (job.job_id, job.delay_ms, job.priority, "1" if job.lifo else "", job.extras)
        return args

    def command(self, name: str, suffixes: tuple[str, ...], *args: Any) -> tuple[Any, ...]:
        """Return a script's call as a command, for a transaction over several queues."""
        keys = [self._base + suffix for suffix in suffixes]
        return ("EVALSHA", load(name).sha, len(keys), *keys, self._base, *args)

    async def move_to_active(self, now_ms: int, fetch: Fetch) -> Fetched:
        """Fetch up to `fetch.want` jobs and lock them."""
        answer = await self._run(
            "move_to_active", keysets.MOVE_TO_ACTIVE, now_ms, *fetch.args(), "1" if fetch.shares else ""
        )
        try:
            return _fetched(answer, 0)
        except _NOT_UNDERSTOOD as error:
            raise nonsense(self._named("move_to_active"), type(error).__name__) from error

    async def move_to_finished(
        self, now_ms: int, finished: Iterable[FinishedJob], fetch: Fetch, metrics_points: int = 0
    ) -> tuple[list[int], Fetched]:
        """End jobs, and fetch others in the same call.

        Args:
            now_ms: What time it is.
            finished: The ends.
            fetch: What to ask for.
            metrics_points: How many minutes of metrics are kept; 0 collects none.

        Returns:
            Per finished job 0 or a negative refusal, which has changed nothing; and the answer to the fetch.
        """
        rules: dict[tuple[str, str, str, str], int] = {}
        args: list[Any] = []
        for job in finished:
            keep = job.keep
            rule = rules.setdefault((job.target, keep.count, keep.age, keep.limit), len(rules) + 1)
            failure = dumps([job.stacktrace, job.attempts]) if job.target == "failed" else ""
            args += (job.job_id, job.token, rule, job.value, failure)
        answer = await self._run(
            "move_to_finished",
            keysets.MOVE_TO_FINISHED,
            now_ms,
            *fetch.args(),
            metrics_points,
            dumps(list(rules)),
            *args,
        )
        try:
            return answer[0], _fetched(answer, 1)
        except _NOT_UNDERSTOOD as error:
            raise nonsense(self._named("move_to_finished"), type(error).__name__) from error

    async def retry_job(
        self, now_ms: int, job_id: str, token: str, failed_reason: str, stacktrace: str, *, lifo: bool = False
    ) -> None:
        """Run a failed attempt again at once.

        Raises:
            JobNotFoundError, LockLostError, JobNotInStateError: See `errors`.
        """
        args = (now_ms, job_id, token, "1" if lifo else "", failed_reason, stacktrace)
        await self._move(job_id, "retry_job", keysets.RETRY_JOB, *args)

    async def move_to_delayed(
        self,
        now_ms: int,
        job_id: str,
        token: str,
        delay_ms: int,
        *,
        counts: bool,
        was_started: bool = True,
        failed_reason: str = "",
        stacktrace: str = "",
    ) -> None:
        """Let an active job run later; `counts` says whether this was an attempt.

        Without `was_started` it is not even counted as a start: no processor has seen the job.

        Raises:
            JobNotFoundError, LockLostError, JobNotInStateError: See `errors`.
        """
        counted = "1" if counts else "0" if was_started else "-1"
        args = (now_ms, job_id, token, delay_ms, counted, failed_reason, stacktrace)
        await self._move(job_id, "move_to_delayed", keysets.MOVE_TO_DELAYED, *args)

    async def move_to_wait(self, job_id: str, token: str, *, was_started: bool = True) -> int:
        """Give an active job back, uncounted; return how many ms a rate limit still lasts.

        Without `was_started` it is not even counted as a start: no processor has seen the job.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        args = (job_id, token, "" if was_started else "-1")
        return await self._move(job_id, "move_to_wait", keysets.MOVE_TO_WAIT, *args)

    async def move_stalled_jobs_to_wait(self, now_ms: int, max_stalled: int, interval_ms: int) -> list[str]:
        """Take back jobs whose worker has fallen silent; return their ids."""
        args = (now_ms, max_stalled, interval_ms)
        keys = keysets.MOVE_STALLED_JOBS_TO_WAIT
        return await self._ask(list[str], "move_stalled_jobs_to_wait", keys, *args)

    async def extend_locks(self, lock_ms: int, held: Iterable[tuple[str, str]]) -> list[str]:
        """Keep (id, token) jobs ours; return the ids of those that are ours no longer."""
        parts = (part for pair in held for part in pair)
        return await self._ask(list[str], "extend_locks", keysets.EXTEND_LOCKS, lock_ms, *parts)

    async def reclaim_locks(self, lock_ms: int, starts: Iterable[Start]) -> list[str]:
        """Take locks again that have run out, of jobs that are still ours; return the ids of those that are not."""
        parts = (part for start in starts for part in start)
        return await self._ask(list[str], "reclaim_locks", keysets.RECLAIM_LOCKS, lock_ms, *parts)

    async def adopt_jobs(self, token: str) -> list[tuple[str, dict[str, str]]]:
        """Return the active jobs that hold this token: (id, record) each."""
        answer = await self._run("adopt_jobs", keysets.ADOPT_JOBS, token)
        try:
            return _records(answer, 0)
        except _NOT_UNDERSTOOD as error:
            raise nonsense(self._named("adopt_jobs"), type(error).__name__) from error

    async def move_to_waiting_children(
        self, now_ms: int, job_id: str, token: str, child_key: str = ""
    ) -> bool:
        """Let an active job wait for its children, or for one of them; False where there is nothing to wait for.

        Raises:
            JobNotFoundError, FailedChildrenError, LockLostError, JobNotInStateError: See `errors`.
        """
        args = (now_ms, job_id, token, child_key)
        keys = keysets.MOVE_TO_WAITING_CHILDREN
        return await self._move(job_id, "move_to_waiting_children", keys, *args) == 0

    async def release_parents(self, now_ms: int, parent_keys: Sequence[str]) -> None:
        """Let go of parents all of whose children have ended."""
        await self._run("release_parents", RELEASE_PARENTS, now_ms, *parent_keys)

    async def change_delay(self, now_ms: int, job_id: str, delay_ms: int) -> None:
        """Let a delayed job run so long from now.

        Raises:
            JobNotFoundError, JobNotInStateError: See `errors`.
        """
        await self._move(job_id, "change_delay", keysets.CHANGE_DELAY, now_ms, job_id, delay_ms)

    async def change_priority(self, job_id: str, priority: int, *, lifo: bool = False) -> None:
        """Give a job another priority.

        Raises:
            JobNotFoundError: See `errors`.
        """
        args = (job_id, priority, "1" if lifo else "")
        await self._move(job_id, "change_priority", keysets.CHANGE_PRIORITY, *args)

    async def remove_job(self, job_id: str, *, with_children: bool) -> bool:
        """Remove a job; False where a worker holds it, or one of those below it.

        Raises:
            SchedulerJobError: It is the next run of a job scheduler.
        """
        args = (job_id, "1" if with_children else "")
        return await self._move(job_id, "remove_job", keysets.META, *args) == 1

    async def remove_unprocessed_children(self, job_id: str) -> None:
        """Remove a job's children that have neither ended nor begun."""
        await self._move(job_id, "remove_unprocessed_children", keysets.META, job_id)

    async def remove_child_dependency(self, job_id: str, parent_key: str) -> bool:
        """Cut a child from its parent; False where there was no link.

        Raises:
            JobNotFoundError, ParentNotFoundError: See `errors`.
        """
        return await self._move(job_id, "remove_child_dependency", keysets.META, job_id, parent_key) == 0

    async def drain(self, state: str, skip: int, limit: int) -> tuple[int, int]:
        """Remove jobs of one state that have not begun; return how many were removed, and spared."""
        return await self._ask(tuple[int, int], "drain", keysets.META, state, skip, limit)

    async def clean(self, state: str, before_ms: int, limit: int, skip: int = 0) -> tuple[int, list[str]]:
        """Remove jobs of one state that are as old; return how many were looked at, and the removed ones' ids."""
        args = (state, before_ms, limit, skip)
        return await self._ask(tuple[int, list[str]], "clean", ("meta", "events"), *args)

    async def obliterate(self, limit: int, *, force: bool) -> int:
        """Remove what a paused queue has; return 0 done, 1 more is left, -1 not paused, -2 jobs are active."""
        return await self._ask(int, "obliterate", keysets.META, limit, "1" if force else "")

    async def move_jobs_to_wait(self, state: str, limit: int, until_ms: int) -> int:
        """Retry finished jobs, or promote delayed ones; return how many were moved."""
        keys = (state, *keysets.MOVE_JOBS_TO_WAIT)
        return await self._ask(int, "move_jobs_to_wait", keys, state, limit, until_ms)

    async def remove_orphaned_jobs(self, ids: Sequence[str]) -> int:
        """Remove those of these records that no state knows; return how many."""
        return await self._ask(int, "remove_orphaned_jobs", keysets.META, *ids)

    async def repair(self, now_ms: int, fault: str, item: str, other: str = "") -> bool:
        """Mend one thing that is wrong, if it still is; see `repair.lua` for the faults."""
        return await self._ask(int, "repair", keysets.REPAIR, now_ms, fault, item, other) == 1

    async def get_rate_limit_ttl(self, most: int | None) -> int:
        """Return for how many ms the rate limit closes the queue; -2 or -1 where there is no limit."""
        return await self._ask(int, "get_rate_limit_ttl", ("limiter", "meta"), _or_empty(most), is_bare=True)

    async def remove_deduplication_key(self, dedup_id: str, job_id: str = "") -> bool:
        """Free a deduplication id, if this job owns it; without a job, whoever does."""
        return await self._ask(int, "remove_deduplication_key", keysets.META, dedup_id, job_id) == 1

    async def promote(self, job_id: str) -> None:
        """Make a delayed job runnable now.

        Raises:
            JobNotInStateError: It is not delayed.
        """
        await self._move(job_id, "promote", keysets.PROMOTE, job_id)

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
        flags = ("1" if flag else "" for flag in (lifo, reset_attempts_made, reset_attempts_started))
        keys = (state, *keysets.REPROCESS_JOB)
        await self._move(job_id, "reprocess_job", keys, job_id, state, *flags)

    async def pause(self, action: str) -> int:
        """`pause` or `resume` the queue; return how many ids of an old version are left to `continue` with."""
        return await self._ask(int, "pause", keysets.PAUSE, action, is_bare=True)

    async def hand_on_marker(self) -> None:
        """Wake another worker, if there is something to do, in place of one that was woken and will not fetch."""
        await self._run("hand_on_marker", keysets.HAND_ON_MARKER, is_bare=True)

    async def update_progress(self, job_id: str, token: str, progress: str) -> None:
        """Write progress, as JSON. An empty token is somebody who is not the job's worker.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        await self._move(job_id, "update_progress", keysets.UPDATE_PROGRESS, job_id, token, progress)

    async def update_data(self, job_id: str, token: str, data: str) -> None:
        """Replace a job's data, as JSON. An empty token is somebody who is not the job's worker.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        await self._move(job_id, "update_data", keysets.META, job_id, token, data)

    async def add_log(self, job_id: str, token: str, row: str, keep: int | None) -> int:
        """Append a row to a job's log; return how many rows there are.

        Raises:
            JobNotFoundError, LockLostError: See `errors`.
        """
        return await self._move(job_id, "add_log", keysets.META, job_id, token, row, _or_empty(keep))

    async def upsert_job_scheduler(
        self,
        now_ms: int,
        scheduler_id: str,
        run: NextRun,
        name: str,
        data: str,
        fields: Sequence[str],
        every: int | None = None,
        offset: int | None = None,
        start_ms: int | None = None,
    ) -> tuple[str, int]:
        """Make or replace a job scheduler; return its pending job's id, and in how many ms it is due.

        Args:
            fields: The definition's record: names and values in turn.

        Raises:
            SchedulerSlotError: Other jobs of this scheduler stand where the next would.
        """
        answer = await self._run(
            "upsert_job_scheduler",
            keysets.JOB_SCHEDULER,
            now_ms,
            scheduler_id,
            *map(_or_empty, (run.next_ms, every, offset, start_ms)),
            name,
            data,
            *run.args(),
            dumps(fields),
        )
        if isinstance(answer, int) and answer < 0:
            raise refusal(answer, f"repeat:{scheduler_id}", self._keys.queue)
        return understood(tuple[str, int], answer, self._named("upsert_job_scheduler"))

    async def update_job_scheduler(
        self,
        now_ms: int,
        scheduler_id: str,
        run: NextRun,
        *,
        producer_id: str = "",
        planned_ms: str = "",
        every: int | None = None,
    ) -> str:
        """Add a scheduler's next run as its pending one starts; return the new job's id, empty for none.

        Args:
            producer_id: The job that starts; only the pending one plans anything.
            planned_ms: Without a producer: the run whose job is gone.
            every: The interval, where the scheduler's record has none.
        """
        return await self._ask(
            str,
            "update_job_scheduler",
            keysets.JOB_SCHEDULER,
            now_ms,
            scheduler_id,
            producer_id,
            planned_ms,
            *map(_or_empty, (run.next_ms, every)),
            *run.args(),
        )

    async def remove_job_scheduler(self, scheduler_id: str) -> bool:
        """Remove a job scheduler; False where there was none."""
        keys = ("repeat", "delayed", "events")
        return await self._ask(int, "remove_job_scheduler", keys, scheduler_id) == 0

    async def find_idle_job_schedulers(self, first: int, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """Return how many schedulers were looked at, and (id, planned ms) of those whose pending job is gone."""
        answer = await self._ask(list[str | int], "find_idle_job_schedulers", keysets.FIND_IDLE, first, limit)
        # It is flat, as Lua makes lists: how many first, then two by two.
        parts = (answer[:1], answer[1::2], answer[2::2])
        (seen,), ids, planned = understood(
            tuple[tuple[int], list[str], list[str]], parts, self._named("find_idle_job_schedulers")
        )
        return seen, list(zip(ids, planned, strict=False))

    async def get_state(self, job_id: str) -> str:
        """Return the name of the state that a job is in, `unknown` where it is in none."""
        return await self._ask(str, "get_state", keysets.GET_STATE, job_id, is_bare=True)

    async def get_counts(self) -> Sequence[int]:
        """Return how many jobs are in each state, in the order of `STATES`."""
        return await self._ask(
            tuple[int, int, int, int, int, int, int], "get_counts", keysets.GET_COUNTS, "0:", is_bare=True
        )

    async def get_dependencies(self, job_id: str) -> tuple[list[str], list[str], list[str], list[str]]:
        """Return a job's children: processed, unprocessed, ignored, failed; the first and third with values."""
        return await self._ask(
            tuple[list[str], list[str], list[str], list[str]], "get_dependencies", keysets.META, job_id, ""
        )

    async def count_dependencies(self, job_id: str) -> tuple[int, int, int, int]:
        """Return how many children a job has, by how they stand."""
        return await self._ask(tuple[int, int, int, int], "get_dependencies", keysets.META, job_id, "1")

    async def read_together(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """Return the answers to commands that only read, all of one moment; an error stands in its answer's place."""
        # As text: Redis' cmsgpack knows no bytes.
        packed = msgpack.encode([[str(part) for part in command] for command in commands])
        answers: list[Any] = await self._run("read_together", keysets.META, packed, is_bare=True)
        return answers

    async def _move(self, job_id: str, name: str, suffixes: tuple[str, ...], *args: Any) -> int:
        """Run a script that answers about one job with a number; return that, or raise what it refuses."""
        answer = understood(
            int, await self._run(name, suffixes, *args), self._named(f"{name} of job {job_id!r}")
        )
        if answer < 0:
            raise refusal(answer, job_id, self._keys.queue)
        return answer

    async def _ask(
        self, kind: type[T], name: str, suffixes: tuple[str, ...], *args: Any, is_bare: bool = False
    ) -> T:
        """Run a script whose answer is of this kind."""
        answer = await self._run(name, suffixes, *args, is_bare=is_bare)
        return understood(kind, answer, self._named(name))

    def _named(self, name: str) -> str:
        return f"queue {self._keys.queue!r}: {name}"

    async def _run(self, name: str, suffixes: tuple[str, ...], *args: Any, is_bare: bool = False) -> Any:
        script, keys = self._bind(name, suffixes)
        if is_bare:
            return await script.run(self._executor, keys, *args)
        return await script.run(self._executor, keys, self._base, *args)

    def _bind(self, name: str, suffixes: tuple[str, ...]) -> tuple[Script, tuple[str, ...]]:
        bound = self._bound.get((name, suffixes[0]))
        if bound is None:
            bound = (load(name), tuple(self._base + suffix for suffix in suffixes))
            self._bound[name, suffixes[0]] = bound
        return bound


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value


def _fetched(answer: list[Any], at: int) -> Fetched:
    return Fetched(_records(answer, at + 3), answer[at], float(answer[at + 1]), answer[at + 2] == 1)


def _records(answer: list[Any], at: int) -> list[tuple[str, dict[str, str]]]:
    jobs: list[tuple[str, dict[str, str]]] = []
    for i in range(at, len(answer), 2):
        fields = iter(answer[i + 1])
        jobs.append((answer[i], dict(zip(fields, fields, strict=True))))
    return jobs


def _only_waits(job: NewRecord) -> bool:
    return not (job.job_id or job.delay_ms or job.priority or job.lifo or job.extras)
