"""BullMQ's Python port, 3.x: its defaults (events on, completed jobs kept); only the concurrency is given. `addBulk`
is its fastest add. On uvloop, like every asyncio contestant. It awaits what the processor returns, so it has no
plain functions.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from bullmq import FlowProducer, Queue, Worker

from benchmarks.contestants.harness import QUEUE, Adapter, fail_first, main
from benchmarks.tally import Tally


class BullMQ(Adapter):
    missing: ClassVar = {"sync": "no sync processors"}
    pending: ClassVar = tuple(
        f"bull:{QUEUE}:{state}" for state in ("wait", "active", "prioritized", "delayed", "waiting-children")
    )
    kept: ClassVar = f"bull:{QUEUE}:completed"
    distributions: ClassVar = ("bullmq", "redis", "hiredis", "msgpack", "uvloop")

    def open(self) -> None:
        self.queue = Queue(QUEUE, {"connection": self.url})
        self.flows = FlowProducer(self.url)

    def add(self, data: dict[str, Any], *, name: str = "noop", **options: Any) -> Any:
        return self.queue.add(name, data, _stored(options))

    def add_bulk(self, datas: list[dict[str, Any]], **options: Any) -> Any:
        jobs = [
            {"name": each.pop("name", "noop"), "data": data, "opts": _stored(each)}
            for data, each in zip(datas, options["each"], strict=True)
        ]
        return self.queue.addBulk(jobs)

    def add_flow(self, children: int) -> Any:
        leaves = [{"name": "noop", "queueName": QUEUE, "data": {"t": 0}} for _ in range(children)]
        return self.flows.add({"name": "noop", "queueName": QUEUE, "data": {"t": 0}, "children": leaves})

    async def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        seen: set[str] = set()

        async def process(job: Any, token: str) -> None:
            tally.hit(job.data["t"])
            if job.name == "fail_once":
                fail_first(seen, job.id)

        Worker(QUEUE, process, {"connection": self.url, "concurrency": concurrency})
        await asyncio.Event().wait()


def _stored(options: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value * 1000) if key == "delay" else value for key, value in options.items() if value}


if __name__ == "__main__":
    main(BullMQ)
