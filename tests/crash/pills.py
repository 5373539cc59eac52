"""A worker process for a test: most jobs end soon, and those named `pill` end the process.

Arguments: URL, prefix.
"""

from __future__ import annotations

import asyncio
import os
import sys

from toril import Job, Queue, Worker


async def main(url: str, prefix: str) -> None:
    async def process(job: Job) -> None:
        if job.name == "pill":
            os._exit(1)
        await asyncio.sleep(0.02)

    async with Queue("tests", connection=url, prefix=prefix) as queue:
        await Worker(queue, process, concurrency=20, lock_duration=1, stalled_interval=0.3, grace=0.3).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
