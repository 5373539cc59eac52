"""One queue's scripts, and what stands in the server before and after a call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio

from toril.connection import Connection
from toril.keys import QueueKeys
from toril.options import KeepRule
from toril.scripts import Fetch, Fetched, FinishedJob, NewRecord, Scripts
from toril.states import FinishedState

__all__ = ["LOCK_MS", "NOW", "TOKEN", "Room", "end", "failure", "fetch", "record", "score"]

NOW: Final = 1_800_000_000_000
"""What time it is in these tests, unless they say otherwise."""
LOCK_MS: Final = 30_000
TOKEN: Final = "worker:1"

Dump = dict[str, Any]


def record(
    job_id: str = "",
    *,
    name: str = "paint",
    data: str = '{"n":1}',
    options: str = '{"attempts":0}',
    at: int = NOW,
    delay: int = 0,
    priority: int = 0,
    lifo: bool = False,
) -> NewRecord:
    return NewRecord(job_id, name, data, options, str(at), delay, priority, lifo)


def fetch(
    want: int = 1, token: str = TOKEN, *, worker: str = "", limit: tuple[int, int] | None = None
) -> Fetch:
    return Fetch(want, token, LOCK_MS, worker, limit)


def end(
    job_id: str,
    target: FinishedState = "completed",
    value: str = '"done"',
    *,
    token: str = TOKEN,
    attempts: int = 0,
    stacktrace: str = "",
    keep: KeepRule = KeepRule(),  # noqa: B008 - frozen
) -> FinishedJob:
    return FinishedJob(job_id, token, target, value, stacktrace, attempts, keep)


def score(due_ms: int, sequence: int = 0) -> float:
    """The score of a delayed job."""
    return float(due_ms * 4096 + sequence)


def failure(
    job_id: str,
    *,
    token: str = TOKEN,
    attempts: int = 0,
    keep: KeepRule = KeepRule(),  # noqa: B008 - frozen
) -> FinishedJob:
    return FinishedJob(job_id, token, "failed", "boom", '["trace"]', attempts, keep)


class Room:
    """A queue to call scripts on."""

    def __init__(self, keys: QueueKeys, connection: Connection, client: redis.asyncio.Redis) -> None:
        self.keys = keys
        self.client: Any = client  # redis-py's types mix sync and async answers
        self.scripts = Scripts(keys, connection)
        self._seen = "-"

    async def add(self, *records: NewRecord) -> list[str]:
        return [str(job_id) for job_id in await self.scripts.add_job(records)]

    async def start(self, *records: NewRecord, token: str = TOKEN, worker: str = "") -> list[str]:
        """Add jobs and fetch them; forget the events so far."""
        ids = await self.add(*records)
        fetched = await self.take(len(ids), token=token, worker=worker)
        assert sorted(job_id for job_id, _ in fetched.jobs) == sorted(ids)
        await self.events()
        return ids

    async def take(
        self,
        want: int = 1,
        *,
        token: str = TOKEN,
        now: int = NOW,
        worker: str = "",
        limit: tuple[int, int] | None = None,
    ) -> Fetched:
        return await self.scripts.move_to_active(now, fetch(want, token, worker=worker, limit=limit))

    async def finish(
        self, *ends: FinishedJob, want: int = 0, now: int = NOW + 50, token: str = "worker:2", points: int = 0
    ) -> tuple[list[int], Fetched]:
        return await self.scripts.move_to_finished(now, ends, fetch(want, token), points)

    async def job(self, job_id: str) -> dict[str, str]:
        answer: dict[str, str] = await self.client.hgetall(self.keys.job(job_id))
        return answer

    async def wait(self) -> list[str]:
        return await self.ids("wait")

    async def ids(self, suffix: str) -> list[str]:
        answer: list[str] = await self.client.lrange(self.keys.key(suffix), 0, -1)
        return answer

    async def scores(self, suffix: str) -> dict[str, float]:
        return dict(await self.client.zrange(self.keys.key(suffix), 0, -1, withscores=True))

    async def marker(self) -> dict[str, float]:
        return await self.scores("marker")

    async def sleepers_are_woken(self) -> bool:
        return "0" in await self.marker()

    async def forget_marker(self) -> None:
        await self.client.delete(self.keys.key("marker"))

    async def events(self) -> list[str]:
        """What has happened since the last call, in order: `waiting jobId=1 prev=active`."""
        entries = await self.client.xrange(self.keys.key("events"), self._seen, "+")
        if entries:
            self._seen = f"({entries[-1][0]}"
        return [_told(fields) for _, fields in entries]

    async def set_meta(self, **fields: Any) -> None:
        await self.client.hset(self.keys.key("meta"), mapping=fields)

    async def dump(self) -> Dump:
        """All keys of the queue by their suffixes, with what they hold."""
        content: Dump = {}
        async for key in self.client.scan_iter(match=f"{self.keys.base}*", count=1000):
            suffix = key[len(self.keys.base) :]
            content[suffix] = await self._read(key)
        return content

    async def _read(self, key: str) -> Any:
        kind = await self.client.type(key)
        match kind:
            case "string":
                return await self.client.get(key)
            case "list":
                return await self.client.lrange(key, 0, -1)
            case "set":
                return sorted(await self.client.smembers(key))
            case "hash":
                return await self.client.hgetall(key)
            case "zset":
                return await self.client.zrange(key, 0, -1, withscores=True)
            case "stream":
                return [_told(fields) for _, fields in await self.client.xrange(key)]
            case _:
                raise AssertionError(f"{key}: {kind}")


def _told(fields: dict[str, str]) -> str:
    return " ".join(value if name == "event" else f"{name}={value}" for name, value in fields.items())


@asynccontextmanager
async def open_room(url: str, prefix: str, name: str = "room") -> AsyncGenerator[Room]:
    async with (
        Connection(url) as connection,
        redis.asyncio.Redis.from_url(url, decode_responses=True) as client,
    ):
        yield Room(QueueKeys(prefix, name), connection, client)
