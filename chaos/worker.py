"""A worker as a process of its own: does what each job's data says, and writes starts and ends into the ledger.

`python -m chaos.worker OPTIONS`, a JSON object: url, queue, ledger, and options of `Worker`. Data of a job:

    ms      how long it takes
    fails   how many of its attempts fail at first
    block   seconds for which it holds up the event loop
    gil     seconds for which no thread of the process can run
    pill    it ends its process
    hang    it never ends

With an option `timeout` (seconds) an attempt may take no longer; with `lag` (seconds) it writes so often how late its
event loop is. On SIGUSR1 it writes how many tasks there are and what time it is, and with `is_traced` which lines of
code hold more memory than at the first such signal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import time
import tracemalloc
from typing import Any

from toril import Job, Queue, Worker

from . import sandboxed
from .ledger import Ledger


def hold_gil(seconds: float) -> None:
    """Keep all threads from running: one call into C that takes long. The pattern backtracks, about 3**n ways."""
    end = time.monotonic() + seconds
    size = 16
    while time.monotonic() < end:
        began = time.monotonic()
        re.match(r"(a|aa|a?)*$", "a" * size + "b")
        # One long call rather than many: between calls the others get their turn.
        if time.monotonic() - began < seconds / 4:
            size += 1


async def watch_lag(book: Ledger, every: float) -> None:
    """Write how much later than asked a sleep ends."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every
        await asyncio.sleep(every)
        book.write("lag", s=round(loop.time() - due, 5))


async def watch_health(book: Ledger, worker: Worker) -> None:
    """Write what the worker says of itself whenever that changes."""
    state = ""
    while True:
        health = worker.health()
        if health.state != state:
            state = health.state
            book.write("health", pid=os.getpid(), state=state)
        await asyncio.sleep(0.25)


def grown(since: tracemalloc.Snapshot) -> list[str]:
    """The ten lines of code whose memory has grown most, in the order of how much."""
    found = tracemalloc.take_snapshot().compare_to(since, "lineno")
    most = sorted(found, key=lambda one: -one.size_diff)[:10]
    return [
        f"{'/'.join(one.traceback[0].filename.split('/')[-2:])}:{one.traceback[0].lineno} "
        f"{one.size_diff / 1024:+.1f} kB in {one.count_diff:+} pieces"
        for one in most
    ]


async def main(options: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    directory = options.pop("ledger")
    book = Ledger(directory, "worker")
    pid = os.getpid()

    is_terse, has_begun = options.pop("terse", False), False

    async def process(job: Job) -> str:
        nonlocal has_begun
        data: dict[str, Any] = job.data or {}
        run = job.attempts_started
        if is_terse:
            if not has_begun:
                book.write("first", pid=pid)
            has_begun = True
            return ""
        book.write("start", id=job.id, run=run, pid=pid)
        if data.get("pill"):
            os._exit(1)
        if data.get("block"):
            time.sleep(data["block"])  # noqa: ASYNC251 - on purpose
        if data.get("gil"):
            hold_gil(data["gil"])
        try:
            await asyncio.sleep(3600 if data.get("hang") else data.get("ms", 0) / 1000)
        except asyncio.CancelledError:
            book.write("gone", id=job.id, run=run, pid=pid)
            raise
        if job.attempts_made < data.get("fails", 0):
            book.write("end", id=job.id, run=run, pid=pid, failed=True)
            raise ValueError("this attempt is to fail")
        book.write("end", id=job.id, run=run, pid=pid)
        return f"{pid}:{run}"

    snapshot: tracemalloc.Snapshot | None = None
    if options.pop("is_traced", False):
        tracemalloc.start()

    def count() -> None:
        nonlocal snapshot
        book.write("held", pid=pid, tasks=len(asyncio.all_tasks()), clock=time.time())
        if snapshot is not None:
            book.write("grown", pid=pid, lines=grown(snapshot))
        elif tracemalloc.is_tracing():
            snapshot = tracemalloc.take_snapshot()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, count)
    lag = options.pop("lag", None)
    watch = asyncio.create_task(watch_lag(book, lag)) if lag else None
    # Names of the library's options, for the library.
    async with Queue(options.pop("queue"), connection=options.pop("url")) as queue:
        seconds = options.pop("timeout", None)
        if options.pop("is_sandboxed", False):
            # What the worker's children find; the ledger has no other way to them.
            os.environ[sandboxed.LEDGER] = directory
            queue.processor("work", timeout=seconds, sandboxed=True)(sandboxed.work)
            worker = Worker(queue, **options)
        elif seconds:
            # Only a processor of the queue's own has a limit of time.
            queue.processor("work", timeout=seconds)(process)
            worker = Worker(queue, **options)
        else:
            worker = Worker(queue, process, **options)
        worker.on("ready", lambda: book.write("ready", pid=pid))

        @worker.on("lock_lost")
        def lost(job: Job) -> None:  # pyright: ignore[reportUnusedFunction]
            book.write("lock_lost", id=job.id, pid=pid)

        @worker.on("error")
        def failed(error: Exception) -> None:  # pyright: ignore[reportUnusedFunction]
            book.write("error", pid=pid, what=type(error).__name__)

        watching = asyncio.create_task(watch_health(book, worker))
        await worker.run()
        watching.cancel()
    if watch is not None:
        watch.cancel()
    book.write("stopped", pid=pid)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
