"""Looking at a queue: its jobs, its counts, its workers. Nothing here changes anything.

`Queue` has all of it; see `queue`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .connection import Connection
from .errors import ConfigurationError, JobNotFoundError, ServerRefusedError
from .job import Job
from .keys import QueueKeys, client_name
from .scripts import Scripts
from .states import KEY_OF_STATE, LIST_STATES, STATES, FinishedState, State

if TYPE_CHECKING:
    from .queue import Queue

__all__ = ["JobLogs", "Metrics", "QueueGetters", "checked_states"]


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
    """

    count: int
    prev_ts: int
    prev_count: int
    data: list[int]


class QueueGetters:
    """What can be asked of a queue."""

    keys: QueueKeys
    connection: Connection
    scripts: Scripts

    async def get_job(self, job_id: str) -> Job[Any] | None:
        """Return a job, or None where there is none of this id."""
        record = _pairs(await self.connection.execute("HGETALL", self.keys.job(job_id)))
        return self._job(job_id, record) if record else None

    async def get_job_or_raise(self, job_id: str) -> Job[Any]:
        """Return a job.

        Raises:
            JobNotFoundError: There is none of this id.
        """
        job = await self.get_job(job_id)
        if job is None:
            raise JobNotFoundError(job_id, f"not found in queue {self.keys.qualified_name!r}")
        return job

    async def get_job_state(self, job_id: str) -> State:
        """Return the state of a job; `unknown` where there is none of this id."""
        return cast("State", await self.scripts.get_state(job_id))

    async def get_job_counts(self, *states: State) -> dict[State, int]:
        """Return how many jobs there are in each of these states; without any, in all of them."""
        wanted = checked_states(states or STATES)
        commands = [
            ("LLEN" if state in LIST_STATES else "ZCARD", self.keys.key(KEY_OF_STATE[state]))
            for state in wanted
        ]
        # Together, so that no job is counted twice while it moves.
        *_, counts = await self.connection.execute_all([("MULTI",), *commands, ("EXEC",)])
        return dict(zip(wanted, counts, strict=True))

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
        execute = self.connection.execute
        if checked not in LIST_STATES:
            ids: list[str] = await execute("ZRANGE" if ascending else "ZREVRANGE", key, start, end)
        elif ascending:
            # The oldest is at the right end.
            ids = (await execute("LRANGE", key, -(end + 1), -(start + 1)))[::-1]
        else:
            ids = await execute("LRANGE", key, start, end)
        return ids

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
        if not ids:
            return []
        commands = [("HGETALL", self.keys.job(job_id)) for job_id in ids]
        try:
            records = await self.connection.execute_all(commands)
        except ServerRefusedError:
            # Under one of the keys stands something else; the others are jobs all the same.
            records = [await self._record_or_nothing(*command) for command in commands]
        return [
            self._job(job_id, _pairs(record)) for job_id, record in zip(ids, records, strict=True) if record
        ]

    async def _record_or_nothing(self, *command: str) -> list[str]:
        try:
            record: list[str] = await self.connection.execute(*command)
        except ServerRefusedError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return []
        return record

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

    async def get_job_logs(
        self, job_id: str, start: int = 0, end: int = -1, *, ascending: bool = True
    ) -> JobLogs:
        """Return rows of a job's log, the oldest first unless `ascending` is False."""
        key = self.keys.job(job_id) + ":logs"
        first, last = (start, end) if ascending else (-(end + 1), -(start + 1))
        commands = [("LRANGE", key, first, last), ("LLEN", key)]
        *_, (rows, count) = await self.connection.execute_all([("MULTI",), *commands, ("EXEC",)])
        return JobLogs(rows if ascending else rows[::-1], count)

    async def get_workers(self) -> list[dict[str, str]]:
        """Return the connections of this queue's workers, Node's among them, as CLIENT LIST shows them."""
        wanted = client_name(self.keys)
        listed = "".join([await node.execute("CLIENT", "LIST") for node in await self.connection.nodes()])
        clients = [
            {name: value for name, _, value in (field.partition("=") for field in line.split(" "))}
            for line in listed.splitlines()
        ]
        return [
            client
            for client in clients
            if client["name"] == wanted or client["name"].startswith(f"{wanted}:w:")
        ]

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
        return dict(zip(wanted, await self.connection.execute_all(commands), strict=True)) if wanted else {}

    async def count(self) -> int:
        """Return how many jobs have yet to run: waiting, prioritized, delayed, and those waiting for children."""
        counts = await self.get_job_counts("waiting", "prioritized", "delayed", "waiting-children")
        return sum(counts.values())

    async def get_meta(self) -> dict[str, str]:
        """Return the settings that stand in Redis, under BullMQ's names."""
        return _pairs(await self.connection.execute("HGETALL", self.keys.key("meta")))

    async def get_metrics(self, state: FinishedState, start: int = 0, end: int = -1) -> Metrics:
        """Return how many jobs ended so, per minute, the newest first. Workers collect it if they are told to."""
        key = self.keys.key(f"metrics:{state}")
        commands = [("HMGET", key, "count", "prevTS", "prevCount"), ("LRANGE", f"{key}:data", start, end)]
        *_, (meta, points) = await self.connection.execute_all([("MULTI",), *commands, ("EXEC",)])
        count, prev_ts, prev_count = (int(value or 0) for value in meta)
        return Metrics(count, prev_ts, prev_count, [int(point) for point in points])

    async def is_paused(self) -> bool:
        """Whether the queue is paused."""
        return bool(await self.connection.execute("HEXISTS", self.keys.key("meta"), "paused"))

    def _job(self, job_id: str, record: dict[str, str]) -> Job[Any]:
        return Job(cast("Queue", self), job_id, record)


def _pairs(flat: list[str]) -> dict[str, str]:
    fields = iter(flat)
    return dict(zip(fields, fields, strict=True))


def checked_states(states: Sequence[State]) -> Sequence[State]:
    """Return the states, if there are such.

    Raises:
        ConfigurationError: One of them is no state.
    """
    for state in states:
        if state not in KEY_OF_STATE:
            raise ConfigurationError(f"unknown state {state!r}; there are {', '.join(STATES)}")
    return states
