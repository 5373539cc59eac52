"""streaq with its defaults (pickle, results kept five minutes). Only the concurrency is given; `enqueue_many` is its
fastest add. On uvloop, like every asyncio contestant. Priorities are named in its worker, so it gets ten of them for
that workload.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from streaq import StreaqRetry, Worker

from benchmarks.contestants.harness import QUEUE, Adapter, main
from benchmarks.tally import Tally

PRIORITIES = [str(i) for i in range(10, 0, -1)]


class Streaq(Adapter):
    pending: ClassVar = tuple(
        f"streaq:{QUEUE}:queues:{name}" for name in (*PRIORITIES, "default", "delayed:default")
    )
    distributions: ClassVar = ("streaq", "coredis", "uvloop")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.tally: Tally | None = None

    def _worker(self, concurrency: int, threads: int, priorities: list[str]) -> None:
        self.worker = Worker(
            redis_url=self.url,
            queue_name=QUEUE,
            concurrency=threads or concurrency,
            sync_concurrency=threads or None,
            priorities=priorities,
            handle_signals=False,
        )

        async def noop(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])

        def noop_sync(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])

        async def fail_once(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])
            if self.tasks["fail_once"].context.tries == 1:
                raise StreaqRetry("the first attempt fails", delay=0)

        async def parent() -> None:
            self.tally.hit()

        task = self.worker.task
        self.tasks = {
            "noop": task(name="noop")(noop_sync if threads else noop),
            "fail_once": task(name="fail_once")(fail_once),
            "parent": task(name="parent")(parent),
        }

    async def open(self) -> None:
        # From the lowest; a task that says nothing goes there.
        self._worker(100, 0, ["default", *PRIORITIES])
        await self.worker.__aenter__()

    def _task(
        self, data: dict[str, Any], *, name: str = "noop", delay: float = 0, priority: int = 0, **_: Any
    ) -> Any:
        task = self.tasks[name].enqueue(data)
        if delay or priority:
            task.start(
                delay=timedelta(seconds=delay) if delay else None,
                priority=str(priority) if priority else None,
            )
        return task

    async def add(self, data: dict[str, Any], **options: Any) -> None:
        await self._task(data, **options)

    def add_bulk(self, datas: list[dict[str, Any]], **options: Any) -> Any:
        tasks = [self._task(data, **each) for data, each in zip(datas, options["each"], strict=True)]
        return self.worker.enqueue_many(tasks)

    async def add_flow(self, children: int) -> None:
        leaves = [self._task({"t": 0}) for _ in range(children)]
        await self.worker.enqueue_many(leaves)
        await self.tasks["parent"].enqueue().start(after=[leaf.id for leaf in leaves])

    async def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        self.tally = tally
        self._worker(concurrency, threads, PRIORITIES if self.is_prioritized else ["default"])
        await self.worker.run_async()


if __name__ == "__main__":
    main(Streaq)
