"""Many objects in one process: workers that all serve one queue, or queues that nobody uses.

`python -m chaos.crowd OPTIONS`, a JSON object: url, queue, ledger, and with `queues` so many queues that share a
connection; else `objects`, so many workers with a connection of their own each, and a worker's options. The ledger
calls the n-th worker by the number of the process, times a thousand, plus n. It goes on until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from typing import Any

from toril import Connection, Job, Queue, Worker

from .ledger import Ledger


async def keep_queues(url: str, count: int, book: Ledger) -> None:
    """Open queues, use each once, and keep them open."""
    async with Connection(url) as connection, contextlib.AsyncExitStack() as opened:
        for number in range(count):
            queue = await opened.enter_async_context(Queue(f"idle-{number}", connection=connection))
            await queue.add("work", {})
            await queue.get_job_counts()
        book.write("ready", pid=os.getpid())
        await _told_to_end()


async def keep_workers(url: str, name: str, count: int, book: Ledger, options: dict[str, Any]) -> None:
    """Run workers that do the usual load."""
    async with contextlib.AsyncExitStack() as opened:
        for number in range(count):
            tag = os.getpid() * 1000 + number
            # As in Node.js, where each worker has connections of its own.
            queue = await opened.enter_async_context(Queue(name, connection=url))
            await opened.enter_async_context(Worker(queue, _processor(tag, book), **options))
            book.write("ready", pid=tag)
        await _told_to_end()


def _processor(tag: int, book: Ledger) -> Any:
    async def process(job: Job) -> str:
        data: dict[str, Any] = job.data or {}
        facts: dict[str, Any] = {"id": job.id, "run": job.attempts_started, "pid": tag}
        book.write("start", **facts)
        await asyncio.sleep(data.get("ms", 0) / 1000)
        if job.attempts_made < data.get("fails", 0):
            book.write("end", **facts, failed=True)
            raise ValueError("this attempt is to fail")
        book.write("end", **facts)
        return f"{tag}:{job.attempts_started}"

    return process


async def _told_to_end() -> None:
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, is_over.set)
    await is_over.wait()


async def main(options: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    book = Ledger(options.pop("ledger"), "crowd")
    url, name = options.pop("url"), options.pop("queue")
    if count := options.pop("queues", 0):
        await keep_queues(url, count, book)
    else:
        await keep_workers(url, name, options.pop("objects"), book, options)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
