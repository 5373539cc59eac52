"""toril, with its default options: BullMQ's full layout, events on, completed jobs kept. Only the concurrency is
given, as to everybody. Adds in bulk go through `add_bulk`; a worker is one process on uvloop, which `toril worker`
takes by itself where it is installed."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.contestants.harness import QUEUE, Adapter, fail_first, main
from benchmarks.tally import Tally
from toril import FlowJob, FlowProducer, Job, Queue, Worker
from toril.queue import NewJob


class Toril(Adapter):
    pending: ClassVar = tuple(
        f"bull:{QUEUE}:{state}" for state in ("wait", "active", "prioritized", "delayed", "waiting-children")
    )
    kept: ClassVar = f"bull:{QUEUE}:completed"
    distributions: ClassVar = ("toril", "redis", "hiredis", "msgspec", "uvloop")

    def open(self) -> None:
        self.queue = Queue(QUEUE, connection=self.url)
        self.flows = FlowProducer(connection=self.url)

    def add(self, data: dict[str, Any], *, name: str = "noop", **options: Any) -> Any:
        return self.queue.add(name, data, **options)

    def add_bulk(self, datas: list[dict[str, Any]], **options: Any) -> Any:
        jobs = [
            NewJob(each.pop("name", "noop"), data, each)
            for data, each in zip(datas, options["each"], strict=True)
        ]
        return self.queue.add_bulk(jobs)

    def add_flow(self, children: int) -> Any:
        leaves = [FlowJob("noop", QUEUE, {"t": 0}) for _ in range(children)]
        return self.flows.add(FlowJob("noop", QUEUE, {"t": 0}, children=leaves))

    async def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        queue = Queue(QUEUE, connection=self.url)
        seen: set[str] = set()

        async def process(job: Job[Any]) -> None:
            tally.hit(job.data["t"])
            if job.name == "fail_once":
                fail_first(seen, job.id)

        def process_in_thread(job: Job[Any]) -> None:
            tally.hit(job.data["t"])

        worker = Worker(
            QUEUE,
            process_in_thread if threads else process,
            connection=queue.connection,
            concurrency=threads or concurrency,
        )
        await worker.run()


if __name__ == "__main__":
    main(Toril)
