"""dramatiq on Redis: one worker process of eight threads, which is its default, with its default middleware. No
result backend, likewise. Its client is synchronous; `enqueue` takes one message. Priorities order only what a worker
has fetched already.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contestants.harness import QUEUE, Adapter, fail_first, main
from benchmarks.tally import Tally


class Dramatiq(Adapter):
    is_async: ClassVar = False
    missing: ClassVar = {
        "many": "its client is synchronous",
        "bulk": "no bulk add",
        "prioritized": "no priorities in the queue",
        "flows": "not without a result backend",
    }
    pending: ClassVar = (f"dramatiq:{QUEUE}.msgs", f"dramatiq:{QUEUE}.DQ.msgs")
    distributions: ClassVar = ("dramatiq", "redis", "hiredis")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.tally: Tally | None = None
        self.broker = RedisBroker(url=url)
        dramatiq.set_broker(self.broker)
        seen: set[str] = set()

        def noop(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])

        def fail_once(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])
            fail_first(seen, data["id"])

        actor = dramatiq.actor
        self.actors = {
            "noop": actor(noop, actor_name="noop", queue_name=QUEUE),
            "fail_once": actor(
                fail_once,
                actor_name="fail_once",
                queue_name=QUEUE,
                max_retries=1,
                min_backoff=1,
                max_backoff=1,
            ),
        }
        self.ids = 0

    def add(self, data: dict[str, Any], *, name: str = "noop", delay: float = 0, **_: Any) -> Any:
        if name == "fail_once":
            self.ids += 1
            data["id"] = str(self.ids)
        return self.actors[name].send_with_options(args=(data,), delay=round(delay * 1000) or None)

    def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        self.tally = tally
        dramatiq.Worker(self.broker, worker_threads=threads or 8).start()
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main(Dramatiq)
