"""Waiting in tests: for an event, under a deadline that says what it waited for."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from toril import Job, JobFailedError, Worker
from toril.embedded import EmbeddedServer, Persistence
from toril.worker import WorkerEvent

__all__ = ["PATIENCE", "Heard", "ended", "like", "until", "within"]

PATIENCE = 15
"""Seconds. Long, since a busy machine is no failure; nothing waits for it when all is well."""


@asynccontextmanager
async def within(what: str, seconds: float = PATIENCE) -> AsyncGenerator[None]:
    """A deadline for what happens inside."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            yield
    except TimeoutError:
        if not deadline.expired():
            raise
        pytest.fail(f"waited {seconds} s for {what}")


async def until(
    what: str, condition: Callable[[], Awaitable[object]] | Callable[[], object], seconds: float = PATIENCE
) -> None:
    """Ask until it is so. For what tells no event."""
    async with within(what, seconds):
        while True:
            answer = condition()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.005)


async def ended(*jobs: Job[Any], seconds: float = PATIENCE) -> list[Any]:
    """Wait until jobs have ended; what each returned, or its error."""

    async def one(job: Job[Any]) -> Any:
        try:
            return await job.result()
        except JobFailedError as error:
            return error

    async with within(f"the end of {', '.join(repr(job.id) for job in jobs)}", seconds):
        return await asyncio.gather(*map(one, jobs))


class Heard:
    """What a worker tells of certain events, in order; awaitable."""

    def __init__(self, worker: Worker, *events: WorkerEvent) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._arrived = asyncio.Event()
        for event in events:
            worker.on(event, self._listener(event))

    def _listener(self, event: str) -> Callable[..., None]:
        def hear(*args: Any) -> None:
            self.told.append((event, *args))
            self._arrived.set()

        return hear

    async def wait(self, count: int = 1, what: str = "", seconds: float = PATIENCE) -> list[tuple[Any, ...]]:
        """Wait until so many have been told."""
        async with within(what or f"{count} events; told were {[told[0] for told in self.told]}", seconds):
            while len(self.told) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.told


@contextmanager
def like(
    server: EmbeddedServer, persistence: Persistence = "none", **config: str
) -> Generator[EmbeddedServer]:
    """A server of a test's own, of the same kind as the shared one; settings with `_` for `-`."""
    settings = {name.replace("_", "-"): value for name, value in config.items()}
    with tempfile.TemporaryDirectory(prefix="toril-") as data:
        # A directory of its own is kept over a restart, unlike the server's temporary one.
        directory = Path(data) if persistence != "none" else None
        with EmbeddedServer(directory, persistence, config=settings, binary=server._binary) as own:
            yield own
