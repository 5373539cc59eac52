"""A worker process for the tests at scale: many queues, or many workers of one, or processors that take their time.

It runs them as `toril worker` does.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

from benchmarks.contestants.harness import end_with_runner
from benchmarks.tally import Tally
from toril import Connection, Job, Worker
from toril.cli.worker import work


async def start(
    url: str, tally: Tally, queues: list[str], workers: int, concurrency: int, seconds: float
) -> None:
    async def process(job: Job[object]) -> None:
        tally.hit()
        if seconds:
            await asyncio.sleep(seconds)

    async with Connection(url) as connection:
        await work(
            [
                Worker(name, process, connection=connection, concurrency=concurrency)
                for name in queues
                for _ in range(workers)
            ]
        )


if __name__ == "__main__":
    end_with_runner()
    _, _, _url, _options = sys.argv
    chosen = json.loads(_options)
    queues = [f"scale-{i}" for i in range(chosen["queues"])]
    uvloop.run(
        start(
            _url,
            Tally(chosen["tally"]),
            queues,
            chosen["workers"],
            chosen["concurrency"],
            chosen["milliseconds"] / 1000,
        )
    )
