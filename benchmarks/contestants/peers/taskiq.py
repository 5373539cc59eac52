"""taskiq on Redis streams (`RedisStreamBroker`), which its Redis package names first: acknowledged after the run,
and faster than its lists. No result backend, which is its default and spares it a write per job. The receiver runs
in the process, without the command line's parent; `max_async_tasks` is the concurrency. Retries are its
`SimpleRetryMiddleware`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import taskiq_redis
from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends
from taskiq.api import run_receiver_task

from benchmarks.contestants.harness import QUEUE, Adapter, fail_first, main
from benchmarks.tally import Tally


class Taskiq(Adapter):
    missing: ClassVar = {
        "bulk": "no bulk add",
        "prioritized": "no priorities",
        "delayed": "not without a scheduler process",
        "flows": "no flows",
    }
    pending: ClassVar = (QUEUE,)
    distributions: ClassVar = ("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        broker = taskiq_redis.RedisStreamBroker(
            url, queue_name=QUEUE, consumer_group_name=QUEUE, consumer_id="0"
        )
        self.broker = broker.with_middlewares(SimpleRetryMiddleware())
        self.tally: Tally | None = None
        seen: set[str] = set()

        async def noop(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])

        def noop_sync(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])

        async def fail_once(data: dict[str, Any], context: Context = TaskiqDepends()) -> None:  # noqa: B008 - its way
            self.tally.hit(data["t"])
            fail_first(seen, context.message.task_id)

        self.tasks = {
            "noop": self.broker.register_task(noop, "noop"),
            "noop_sync": self.broker.register_task(noop_sync, "noop_sync"),
            "fail_once": self.broker.register_task(
                fail_once, "fail_once", retry_on_error=True, max_retries=2
            ),
        }

    async def open(self) -> None:
        await self.broker.startup()

    def add(self, data: dict[str, Any], *, name: str = "noop", **_: Any) -> Any:
        return self.tasks[name].kiq(data)

    async def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        self.tally = tally
        self.broker.is_worker_process = True
        await run_receiver_task(
            self.broker,
            max_async_tasks=threads or concurrency,
            sync_workers=threads or None,
            run_startup=True,
        )


if __name__ == "__main__":
    main(Taskiq)
