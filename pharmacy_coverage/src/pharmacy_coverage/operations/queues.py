"""A look at the queues from outside, which may find them gone."""

import asyncio
from dataclasses import dataclass
from typing import Self

from redis.exceptions import RedisError
from toril import Queue, State, TorilError

from ..outbox.topics import QUEUE_NAMES
from ..settings import Settings

__all__ = ["QueueCounts", "QueueWatch"]

PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Jobs of a queue by state, and how many workers serve it."""

    name: str
    counts: dict[State, int]
    workers: int


class QueueWatch:
    """Counts, within a second or not at all."""

    def __init__(self, settings: Settings) -> None:
        self._queues = [
            Queue(name, connection=settings.toril_url, prefix=settings.queue_prefix) for name in QUEUE_NAMES
        ]

    async def counts(self) -> list[QueueCounts] | None:
        """None where the queues' Redis does not answer."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return [
                    QueueCounts(queue.name, await queue.get_job_counts(), len(await queue.get_workers()))
                    for queue in self._queues
                ]
        except (TorilError, RedisError, OSError, TimeoutError):
            return None

    async def is_up(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._queues[0].is_paused()
        except (TorilError, RedisError, OSError, TimeoutError):
            return False
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for queue in self._queues:
            await queue.close()
