"""huey: `PriorityRedisHuey` for priorities, else `RedisHuey`, which blocks on the list and is the faster one. Eight
worker threads; results off for tasks that return nothing, as it comes. Its client is synchronous and adds one task
at a time.
"""

from __future__ import annotations

from typing import Any, ClassVar

from huey import RedisHuey, chord
from huey.consumer import Consumer

from benchmarks.contestants.harness import QUEUE, Adapter, main
from benchmarks.tally import Tally


class Huey(Adapter):
    is_async: ClassVar = False
    missing: ClassVar = {
        "many": "its client is synchronous",
        "bulk": "no bulk add",
        "prioritized": "only in another kind of queue",
    }
    pending: ClassVar = (f"huey.redis.{QUEUE}", f"huey.schedule.{QUEUE}")
    distributions: ClassVar = ("huey", "redis", "hiredis")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.tally: Tally | None = None
        self.huey = RedisHuey(QUEUE, url=url)

        def noop(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])

        def fail_once(data: dict[str, Any], task: Any = None) -> None:
            self.tally.hit(data["t"])
            if task.retries:
                raise RuntimeError("the first attempt fails")

        def parent(results: Any) -> None:
            self.tally.hit()

        self.tasks = {
            "noop": self.huey.task(name="noop")(noop),
            "fail_once": self.huey.task(name="fail_once", retries=1, context=True)(fail_once),
            "parent": self.huey.task(name="parent")(parent),
        }

    def add(self, data: dict[str, Any], *, name: str = "noop", delay: float = 0, **_: Any) -> Any:
        if delay:
            return self.tasks[name].schedule((data,), delay=delay)
        return self.tasks[name](data)

    def add_flow(self, children: int) -> Any:
        leaves = [self.tasks["noop"].s({"t": 0}) for _ in range(children)]
        return self.huey.enqueue(chord(leaves, self.tasks["parent"]))

    def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        self.tally = tally
        Consumer(self.huey, workers=threads or 8, periodic=False).run()


if __name__ == "__main__":
    main(Huey)
