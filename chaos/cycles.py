"""What a queue, a worker and a reader of events leave behind when they are closed: opened and closed again and again.

`python -m chaos.cycles --count 2000` on a server of its own. A cycle opens all three, runs one job, reads of its end,
and closes them. The first tenth is the warm-up: imports, caches, and the memory that Python keeps for later.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import redis.asyncio

from toril import Job, Queue, QueueEvents, Worker
from toril.embedded import EmbeddedServer

__all__ = ["Left", "broken", "cycles"]

QUEUE: Final = "cycles"
MOST_GROWTH_MB: Final = 5.0
DEADLINE: Final = 20.0


@dataclass
class Left:
    """What the process held after the warm-up and at the end; `tasks` and `connections` are what was left over."""

    count: int
    rss_mb: tuple[float, float]
    fds: tuple[int, int]
    threads: tuple[int, int]
    tasks: int
    connections: int


def broken(left: Left) -> list[str]:
    """Which bounds are broken."""
    found: list[str] = []
    if left.rss_mb[1] - left.rss_mb[0] > MOST_GROWTH_MB:
        found.append(f"memory grew by {left.rss_mb[1] - left.rss_mb[0]:.1f} MB in {left.count} cycles")
    if left.fds[0] != left.fds[1]:
        found.append(f"open files went from {left.fds[0]} to {left.fds[1]}")
    if left.threads[1] > left.threads[0]:
        found.append(f"threads went from {left.threads[0]} to {left.threads[1]}")
    if left.tasks:
        found.append(f"{left.tasks} tasks are pending")
    if left.connections:
        found.append(f"{left.connections} connections are open")
    return found


def _rss_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def _fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _once(url: str, prefix: str) -> None:
    async def process(job: Job) -> None:
        return None

    async with (
        Queue(QUEUE, connection=url, prefix=prefix) as queue,
        QueueEvents(QUEUE, connection=url, prefix=prefix) as events,
        Worker(queue, process, remove_on_complete=True, concurrency=2),
    ):
        await queue.add("one", {}, job_id="one")
        async with asyncio.timeout(DEADLINE):
            async for event in events:
                if event.name == "completed" and event.job_id == "one":
                    break


async def _picture(port: int, threads: int) -> tuple[float, int, int, int]:
    # A heartbeat's thread and the ends of sockets come a moment after `close`, which does not wait for them.
    connections = 0
    async with redis.asyncio.Redis(host="127.0.0.1", port=port) as client:
        for _ in range(100):
            connections = len(await client.client_list()) - 1
            if threading.active_count() <= threads and not connections:
                break
            await asyncio.sleep(0.02)
    gc.collect()
    return _rss_mb(), _fds(), threading.active_count(), connections


async def cycles(server: EmbeddedServer, count: int, prefix: str = "bull") -> Left:
    """Open and close so many times, after a warm-up of a tenth of that."""
    url = f"redis://127.0.0.1:{server.port}"
    threads = threading.active_count()
    for _ in range(max(count // 10, 10)):
        await _once(url, prefix)
    before = await _picture(server.port, threads)
    for _ in range(count):
        await _once(url, prefix)
    after = await _picture(server.port, threads)
    return Left(
        count,
        (round(before[0], 2), round(after[0], 2)),
        (before[1], after[1]),
        (before[2], after[2]),
        tasks=len(asyncio.all_tasks()) - 1,
        connections=after[3],
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.cycles")
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="toril-cycles-") as scratch, contextlib.ExitStack() as stack:
        server = EmbeddedServer(Path(scratch), "none")
        server.start()
        stack.callback(server.stop)
        left = asyncio.run(cycles(server, options.count))
    found = broken(left)
    print(json.dumps({**asdict(left), "broken": found}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
