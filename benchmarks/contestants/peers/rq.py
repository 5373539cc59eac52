"""rq with `SimpleWorker`, which runs jobs in its own process: its default forks for each, which costs a no-op job
five times as much. JSON instead of pickle, which is faster for such data. `enqueue_many` is its bulk add. One job at
a time, by design: it has no concurrency to give, so two of its workers are two processes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from redis import Redis
from rq import Queue, Retry, SimpleWorker, get_current_job
from rq.serializers import JSONSerializer

from benchmarks.contestants.harness import QUEUE, Adapter, fail_first, main
from benchmarks.tally import Tally

TALLY: list[Tally] = []
SEEN: set[str] = set()
NOOP = "benchmarks.contestants.peers.rq.noop"
FAIL_ONCE = "benchmarks.contestants.peers.rq.fail_once"


def noop(data: dict[str, Any]) -> None:
    TALLY[0].hit(data["t"])


def fail_once(data: dict[str, Any]) -> None:
    TALLY[0].hit(data["t"])
    fail_first(SEEN, get_current_job().id)


class Rq(Adapter):
    is_async: ClassVar = False
    missing: ClassVar = {
        "many": "its client is synchronous",
        "sync": "no threads",
        "prioritized": "no priorities",
    }
    pending: ClassVar = (
        f"rq:queue:{QUEUE}",
        f"rq:wip:{QUEUE}",
        f"rq:scheduled:{QUEUE}",
        f"rq:deferred:{QUEUE}",
    )
    distributions: ClassVar = ("rq", "redis", "hiredis")

    def open(self) -> None:
        self.queue = Queue(QUEUE, connection=Redis.from_url(self.url), serializer=JSONSerializer)

    def add(
        self, data: dict[str, Any], *, name: str = "noop", delay: float = 0, attempts: int = 1, **_: Any
    ) -> Any:
        if delay:
            return self.queue.enqueue_in(timedelta(seconds=delay), NOOP, data)
        retry = Retry(max=attempts - 1) if attempts > 1 else None
        return self.queue.enqueue(FAIL_ONCE if name == "fail_once" else NOOP, data, retry=retry)

    def add_bulk(self, datas: list[dict[str, Any]], **options: Any) -> Any:
        if any("delay" in each for each in options["each"]):
            for data, each in zip(datas, options["each"], strict=True):
                self.add(data, **each)
            return None
        return self.queue.enqueue_many(
            [
                Queue.prepare_data(
                    FAIL_ONCE if each.get("name") == "fail_once" else NOOP,
                    (data,),
                    retry=Retry(max=each["attempts"] - 1) if "attempts" in each else None,
                )
                for data, each in zip(datas, options["each"], strict=True)
            ]
        )

    def add_flow(self, children: int) -> Any:
        leaves = self.queue.enqueue_many([Queue.prepare_data(NOOP, ({"t": 0},)) for _ in range(children)])
        return self.queue.enqueue(NOOP, {"t": 0}, depends_on=leaves)

    def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        # The worker imports this file by its name; what runs as a program has another.
        from benchmarks.contestants.peers import rq as module

        module.TALLY.append(tally)
        redis = Redis.from_url(self.url)
        queue = Queue(QUEUE, connection=redis, serializer=JSONSerializer)
        SimpleWorker([queue], connection=redis, serializer=JSONSerializer).work(
            logging_level="ERROR", with_scheduler=True
        )


if __name__ == "__main__":
    main(Rq)
