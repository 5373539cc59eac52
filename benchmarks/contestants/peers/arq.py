"""arq: JSON-free by default (pickle), so no serializer is given; results kept as it does (an hour).

`poll_delay` is 0.01 s: an arq worker looks for jobs at intervals, and its default of half a second would cost it
the latency figures; shorter polls cost it throughput. `max_jobs` is the concurrency. Retries are `raise Retry`,
which is what its documentation shows.
"""

from __future__ import annotations

from typing import Any, ClassVar

from arq import Retry, create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.contestants.harness import Adapter, main
from benchmarks.tally import Tally


class Arq(Adapter):
    missing: ClassVar = {
        "bulk": "no bulk add",
        "sync": "no sync processors",
        "prioritized": "no priorities",
        "flows": "no flows",
    }
    pending: ClassVar = ("arq:queue", "arq:in-progress:*")
    distributions: ClassVar = ("arq", "redis", "hiredis", "uvloop")

    async def open(self) -> None:
        self.pool = await create_pool(RedisSettings.from_dsn(self.url))

    def add(
        self, data: dict[str, Any], *, name: str = "noop", delay: float = 0, attempts: int = 1, **_: Any
    ) -> Any:
        return self.pool.enqueue_job(name, data, _defer_by=delay or None)

    async def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        async def noop(ctx: dict[str, Any], data: dict[str, Any]) -> None:
            tally.hit(data["t"])

        async def fail_once(ctx: dict[str, Any], data: dict[str, Any]) -> None:
            tally.hit(data["t"])
            if ctx["job_try"] == 1:
                raise Retry(defer=0)

        worker = Worker(
            functions=[func(noop, name="noop"), func(fail_once, name="fail_once")],
            redis_settings=RedisSettings.from_dsn(self.url),
            max_jobs=concurrency,
            poll_delay=0.01,
            handle_signals=False,
        )
        await worker.async_run()


if __name__ == "__main__":
    main(Arq)
