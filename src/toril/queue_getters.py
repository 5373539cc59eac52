"""Looking at a queue: its jobs, its counts, its workers. Nothing here changes anything.

`Queue` has all of it; see `queue`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from ._answers import ask, ask_all
from ._prometheus import exposition
from ._shown import shown
from ._tracing import Tracing
from .codec import pairs, read_int
from .connection import Connection
from .errors import ConfigurationError, JobNotFoundError, ServerRefusedError
from .job import Job
from .keys import QueueKeys, client_name
from .scripts import Scripts
from .states import KEY_OF_STATE, LIST_STATES, STATES, FinishedState, State

if TYPE_CHECKING:
    from .queue import Queue

__all__ = ["DependenciesRange", "JobLogs", "Metrics", "QueueGetters", "checked_states", "moment_ms"]


@dataclass(frozen=True, slots=True)
class JobLogs:
    """A page of a job's log.

    Attributes:
        logs: The rows.
        count: How many the job has in all.
    """

    logs: list[str]
    count: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """How many jobs have ended in one way.

    Attributes:
        count: In all.
        prev_ts: When the last full minute was taken, in epoch milliseconds.
        prev_count: How many there were then.
        data: Per minute, the newest first.
        points: Of how many minutes there is a number.
    """

    count: int
    prev_ts: int
    prev_count: int
    data: list[int]
    points: int = 0


@dataclass(frozen=True, slots=True)
class DependenciesRange:
    """Children of a job, by position.

    Attributes:
        items: By their full keys what they have returned; None for those that have not ended.
        jobs: Those of them that are in this queue and still exist.
        total: How many there are of this kind.
    """

    items: dict[str, Any]
    jobs: list[Job[Any]]
    total: int


class QueueGetters:
    """What can be asked of a queue."""

    keys: QueueKeys
    connection: Connection
    scripts: Scripts
    tracing: Tracing | None

    async def get_job(self, job_id: str) -> Job[Any] | None:
        """Return a job, or None where there is none of this id."""
        record = pairs(await ask(self.connection, list[str], "HGETALL", self.keys.job(job_id)))
        return self._job(job_id, record) if record else None

    async def get_job_or_raise(self, job_id: str) -> Job[Any]:
        """Return a job.

        Raises:
            JobNotFoundError: There is none of this id.
        """
        job = await self.get_job(job_id)
        if job is None:
            raise JobNotFoundError(
                job_id,
                f"not found in {self.keys.qualified_name!r}; it was removed, or the queue name or prefix differs",
                self.keys.queue,
            )
        return job

    async def get_job_state(self, job_id: str) -> State:
        """Return the state of a job; `unknown` where there is none of this id."""
        return cast("State", await self.scripts.get_state(job_id))

    async def get_job_counts(self, *states: State) -> dict[State, int]:
        """Return how many jobs there are in each of these states; without any, in all of them."""
        wanted = checked_states(states or STATES)
        counts = dict(zip(STATES, await self.scripts.get_counts(), strict=True))
        return {state: counts[state] for state in wanted}

    async def record_job_counts_metric(self, *states: State) -> dict[State, int]:
        """Return what `get_job_counts` does, and tell the meter of the queue's `telemetry`, if it has one.

        The gauge is `bullmq.queue.jobs`; call it as often as it is to be measured, in one process.
        """
        counts = await self.get_job_counts(*states)
        if self.tracing is not None:
            self.tracing.record_counts(counts)
        return counts

    async def get_job_count_by_types(self, *states: State) -> int:
        """Return how many jobs there are in these states together; without any, in all of them."""
        return sum((await self.get_job_counts(*states)).values())

    async def get_waiting_count(self) -> int:
        """Return how many jobs wait for a worker, without a priority."""
        return await self.get_job_count_by_types("waiting")

    async def get_prioritized_count(self) -> int:
        """Return how many jobs wait for a worker, with a priority."""
        return await self.get_job_count_by_types("prioritized")

    async def get_active_count(self) -> int:
        """Return how many jobs are running."""
        return await self.get_job_count_by_types("active")

    async def get_delayed_count(self, before: datetime | None = None) -> int:
        """Return how many jobs wait for their time; with `before`, those that are due by then."""
        if before is None:
            return await self.get_job_count_by_types("delayed")
        latest = moment_ms(before, f"queue {self.keys.queue!r}: before") * 4096 - 1
        return await ask(self.connection, int, "ZCOUNT", self.keys.key("delayed"), "-inf", latest)

    async def get_waiting_children_count(self) -> int:
        """Return how many jobs wait for their children."""
        return await self.get_job_count_by_types("waiting-children")

    async def get_completed_count(self) -> int:
        """Return how many jobs have completed and are kept."""
        return await self.get_job_count_by_types("completed")

    async def get_failed_count(self) -> int:
        """Return how many jobs have failed for good and are kept."""
        return await self.get_job_count_by_types("failed")

    async def get_ids(
        self, state: State, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[str]:
        """Return ids of a state's jobs.

        Args:
            state: Which.
            start: The first position, from 0.
            end: The last position, included; -1 is the very last.
            ascending: The oldest, or the next to run, first; else the newest.
        """
        (checked,) = checked_states((state,))
        key = self.keys.key(KEY_OF_STATE[checked])
        if checked not in LIST_STATES:
            command = "ZRANGE" if ascending else "ZREVRANGE"
            return await ask(self.connection, list[str], command, key, start, end)
        if ascending:
            # The oldest is at the right end.
            return (await ask(self.connection, list[str], "LRANGE", key, -(end + 1), -(start + 1)))[::-1]
        return await ask(self.connection, list[str], "LRANGE", key, start, end)

    async def get_jobs(
        self,
        states: State | Iterable[State] | None = None,
        start: int = 0,
        end: int = -1,
        *,
        ascending: bool = False,
    ) -> list[Job[Any]]:
        """Return jobs of one or several states, one after another; see `get_ids` for the positions."""
        wanted = checked_states((states,) if isinstance(states, str) else tuple(states or STATES))
        ids: dict[str, None] = {}
        for state in wanted:
            ids.update(dict.fromkeys(await self.get_ids(state, start, end, ascending=ascending)))
        return await self._existing(list(ids))

    async def get_waiting(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that wait for a worker, without a priority."""
        return await self.get_jobs("waiting", start, end, ascending=ascending)

    async def get_prioritized(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[Job[Any]]:
        """Return jobs that wait for a worker, with a priority."""
        return await self.get_jobs("prioritized", start, end, ascending=ascending)

    async def get_delayed(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that wait for their time."""
        return await self.get_jobs("delayed", start, end, ascending=ascending)

    async def get_active(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that are running."""
        return await self.get_jobs("active", start, end, ascending=ascending)

    async def get_completed(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[Job[Any]]:
        """Return jobs that have completed and are kept."""
        return await self.get_jobs("completed", start, end, ascending=ascending)

    async def get_failed(self, start: int = 0, end: int = -1, *, ascending: bool = False) -> list[Job[Any]]:
        """Return jobs that have failed for good and are kept."""
        return await self.get_jobs("failed", start, end, ascending=ascending)

    async def get_waiting_children(
        self, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[Job[Any]]:
        """Return jobs that wait for their children."""
        return await self.get_jobs("waiting-children", start, end, ascending=ascending)

    async def get_dependencies(
        self, parent_id: str, kind: Literal["processed", "pending"], start: int = 0, end: int = -1
    ) -> DependenciesRange:
        """Return children of a job by their positions, with their jobs where they are in this queue.

        It looks at all children before `end`; `Job.get_dependencies_page` goes on where it was.

        Args:
            parent_id: The job that waits for them.
            kind: `processed` are those that have completed, `pending` those that have not ended.
            start: The first position, from 0.
            end: The last position, included; -1 is the very last.
        """
        _check_one_of(kind, ("processed", "pending"), f"job {shown(parent_id)}: the kind of children")
        parent: Job[Any] = self._job(parent_id, {})
        counts = await parent.get_dependencies_count()
        total = counts.processed if kind == "processed" else counts.unprocessed
        last = total - 1 if end < 0 else end
        found: dict[str, Any] = {}
        cursor = 0
        while True:
            page = await parent.get_dependencies_page(
                "processed" if kind == "processed" else "unprocessed", cursor, 1_000
            )
            found.update((key, page.values.get(key)) for key in page.keys)
            cursor = page.next_cursor
            if cursor == 0 or len(found) > last:
                break
        chosen = dict(list(found.items())[start : last + 1])
        ids = [key[len(self.keys.base) :] for key in chosen if key.startswith(self.keys.base)]
        return DependenciesRange(chosen, await self._existing(ids), total)

    async def get_job_logs(
        self, job_id: str, start: int = 0, end: int = -1, *, ascending: bool = True
    ) -> JobLogs:
        """Return rows of a job's log, the oldest first unless `ascending` is False."""
        key = self.keys.job(job_id) + ":logs"
        first, last = (start, end) if ascending else (-(end + 1), -(start + 1))
        rows, count = await ask_all(
            self.connection, tuple[list[str], int], [("LRANGE", key, first, last), ("LLEN", key)]
        )
        return JobLogs(rows if ascending else rows[::-1], count)

    async def get_workers(self) -> list[dict[str, str]]:
        """Return the connections of this queue's workers, Node's among them, as CLIENT LIST shows them."""
        wanted = client_name(self.keys)
        return await self._clients(lambda name: name == wanted or name.startswith(f"{wanted}:w:"))

    async def get_workers_count(self) -> int:
        """Return how many workers this queue has, Node's among them."""
        return len(await self.get_workers())

    async def get_queue_events(self) -> list[dict[str, str]]:
        """Return the connections of those who listen to this queue's events, Node's among them."""
        wanted = client_name(self.keys, suffix=":qe")
        return await self._clients(lambda name: name == wanted)

    async def _clients(self, is_wanted: Callable[[str], bool]) -> list[dict[str, str]]:
        listed = "".join([await ask(node, str, "CLIENT", "LIST") for node in await self.connection.nodes()])
        clients = [
            {name: value for name, _, value in (field.partition("=") for field in line.split(" "))}
            for line in listed.splitlines()
        ]
        return [client for client in clients if is_wanted(client.get("name", ""))]

    async def get_counts_per_priority(self, priorities: Iterable[int]) -> dict[int, int]:
        """Return how many jobs wait with each of these priorities; 0 counts those without one."""
        wanted = list(dict.fromkeys(priorities))
        commands: list[tuple[Any, ...]] = []
        for priority in wanted:
            if priority == 0:
                commands.append(("LLEN", self.keys.key("wait")))
            else:
                least, beyond = priority << 32, (priority + 1) << 32
                commands.append(("ZCOUNT", self.keys.key("prioritized"), least, f"({beyond}"))
        counts = await ask_all(self.connection, list[int], commands) if commands else []
        return dict(zip(wanted, counts, strict=True))

    async def count(self) -> int:
        """Return how many jobs have yet to run: waiting, prioritized, delayed, and those waiting for children."""
        counts = await self.get_job_counts("waiting", "prioritized", "delayed", "waiting-children")
        return sum(counts.values())

    async def get_meta(self) -> dict[str, str]:
        """Return the settings that stand in Redis, under BullMQ's names."""
        return pairs(await ask(self.connection, list[str], "HGETALL", self.keys.key("meta")))

    async def get_version(self) -> str | None:
        """Return which library has set the queue up, as `bullmq:6.7.0`; None where only toril has used it."""
        return (await self.get_meta()).get("version")

    async def get_metrics(self, state: FinishedState, start: int = 0, end: int = -1) -> Metrics:
        """Return how many jobs ended so, per minute, the newest first. Workers collect it if they are told to."""
        _check_one_of(state, ("completed", "failed"), f"queue {self.keys.queue!r}: the state of metrics")
        key = self.keys.key(f"metrics:{state}")
        meta, points, length = await ask_all(
            self.connection,
            tuple[tuple[Any, Any, Any], list[str], int],
            [
                ("HMGET", key, "count", "prevTS", "prevCount"),
                ("LRANGE", f"{key}:data", start, end),
                ("LLEN", f"{key}:data"),
            ],
        )
        count, prev_ts, prev_count = (read_int(value) or 0 for value in meta)
        return Metrics(count, prev_ts, prev_count, [read_int(point) or 0 for point in points], length)

    async def export_prometheus_metrics(self, labels: Mapping[str, str] | None = None) -> str:
        """Return counts per state and of ended jobs as Prometheus reads them, under BullMQ's names.

        Args:
            labels: More labels for each line, e.g. the environment.

        Raises:
            ConfigurationError: A label's name cannot be.
        """
        counts = await self.get_job_counts()
        ended = await self.connection.execute_all(
            [("HGET", self.keys.key(f"metrics:{state}"), "count") for state in ("completed", "failed")]
        )
        completed, failed = (read_int(count) or 0 for count in ended)
        return exposition(self.keys.queue, counts, completed, failed, labels or {})

    async def is_paused(self) -> bool:
        """Whether the queue is paused."""
        return bool(await self.connection.execute("HEXISTS", self.keys.key("meta"), "paused"))

    async def _existing(self, ids: Sequence[str]) -> list[Job[Any]]:
        if not ids:
            return []
        commands = [("HGETALL", self.keys.job(job_id)) for job_id in ids]
        try:
            records = await ask_all(self.connection, list[list[str]], commands)
        except ServerRefusedError:
            # Under one of the keys stands something else; the others are jobs all the same.
            records = [await self._record_or_nothing(*command) for command in commands]
        return [
            self._job(job_id, pairs(record)) for job_id, record in zip(ids, records, strict=True) if record
        ]

    async def _record_or_nothing(self, *command: str) -> list[str]:
        try:
            return await ask(self.connection, list[str], *command)
        except ServerRefusedError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return []

    def _job(self, job_id: str, record: dict[str, str]) -> Job[Any]:
        return Job(cast("Queue", self), job_id, record)


def checked_states(states: Sequence[State]) -> Sequence[State]:
    """Return the states, if there are such.

    Raises:
        ConfigurationError: One of them is no state.
    """
    for state in states:
        if state not in KEY_OF_STATE:
            raise ConfigurationError(f"unknown state {state!r}; there are {', '.join(STATES)}")
    return states


def moment_ms(moment: datetime, what: str) -> int:
    """Return epoch milliseconds.

    Raises:
        ConfigurationError: It is no datetime, or at an end of the calendar; begins with `what`.
    """
    try:
        return round(moment.timestamp() * 1000)
    except (AttributeError, ValueError, OverflowError):
        raise ConfigurationError(f"{what} must be a datetime of our times, got {shown(moment)}") from None


def _check_one_of(given: object, known: Sequence[str], what: str) -> None:
    if given not in known:
        raise ConfigurationError(f"{what} must be one of {', '.join(map(repr, known))}, got {shown(given)}")
