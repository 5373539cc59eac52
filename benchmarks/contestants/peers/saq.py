"""saq with its defaults: JSON, results kept as it does (ten minutes). Only the concurrency is given. Its own worker,
in the process; plain functions run in its thread pool.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from saq import Queue, Worker

from benchmarks.contestants.harness import QUEUE, Adapter, main
from benchmarks.tally import Tally


class Saq(Adapter):
    missing: ClassVar = {"bulk": "no bulk add", "flows": "no flows", "prioritized": "no priorities"}
    pending: ClassVar = (f"saq:{QUEUE}:incomplete",)
    distributions: ClassVar = ("saq", "redis", "hiredis", "uvloop")

    async def open(self) -> None:
        self.queue = Queue.from_url(self.url, name=QUEUE)
        await self.queue.connect()

    def add(
        self, data: dict[str, Any], *, name: str = "noop", delay: float = 0, attempts: int = 1, **_: Any
    ) -> Any:
        return self.queue.enqueue(
            name, data=data, retries=attempts, scheduled=int(time.time() + delay) if delay else 0
        )

    async def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        async def noop(ctx: Any, *, data: dict[str, Any]) -> None:
            tally.hit(data["t"])

        def noop_sync(ctx: Any, *, data: dict[str, Any]) -> None:
            tally.hit(data["t"])

        async def fail_once(ctx: Any, *, data: dict[str, Any]) -> None:
            tally.hit(data["t"])
            if ctx["job"].attempts == 1:
                raise RuntimeError("the first attempt fails")

        queue = Queue.from_url(self.url, name=QUEUE)
        worker = Worker(
            queue,
            [("noop", noop_sync if threads else noop), ("fail_once", fail_once)],
            concurrency=threads or concurrency,
        )
        await worker.start()


if __name__ == "__main__":
    main(Saq)
