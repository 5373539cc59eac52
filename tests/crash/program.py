"""A worker process for tests that kill it: runs the jobs of one queue, and writes down what it does.

Arguments: URL, prefix, ledger. The ledger gets a line for each start and each end; what is written to it
survives a SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import sys

from toril import Job, Queue, Worker


async def main(url: str, prefix: str, ledger: str) -> None:
    book = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(*words: object) -> None:
        os.write(book, f"{' '.join(map(str, words))}\n".encode())

    async def process(job: Job) -> str:
        write("start", job.id)
        await asyncio.sleep(job.data or 0)
        write("end", job.id)
        return "done"

    queue = Queue("tests", connection=url, prefix=prefix)
    worker = Worker(
        queue, process, concurrency=5, lock_duration=1, stalled_interval=0.3, max_stalled_count=50, grace=0.3
    )
    worker.on("ready", lambda: write("ready", os.getpid()))
    await worker.run()
    await queue.close()
    write("stopped", os.getpid())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
