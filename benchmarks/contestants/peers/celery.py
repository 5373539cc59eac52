"""celery on Redis, without a result backend (its default). One process: the `threads` pool of eight, since `prefork`
is several processes by design and costs more for no-op jobs. `worker_prefetch_multiplier=100`, which its guide
advises for short tasks; no gossip, mingle or heartbeat, as its guide to tuning says. Its client is synchronous and
has no bulk add: a `group` sends one by one. Retries are `autoretry_for` without a delay; priorities those of kombu's
Redis transport.
"""

from __future__ import annotations

from typing import Any, ClassVar

from celery import Celery

from benchmarks.contestants.harness import QUEUE, Adapter, main
from benchmarks.tally import Tally

THREADS = 8


class CeleryQueue(Adapter):
    is_async: ClassVar = False
    missing: ClassVar = {
        "many": "its client is synchronous",
        "bulk": "no bulk add",
        "flows": "not without a result backend",
    }
    pending: ClassVar = (QUEUE, *(f"{QUEUE}\x06\x16{step}" for step in range(1, 10)), "unacked")
    distributions: ClassVar = ("celery", "kombu", "redis", "hiredis")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.tally: Tally | None = None
        self.app = app = Celery("bench", broker=url)
        app.conf.update(
            task_default_queue=QUEUE,
            task_ignore_result=True,
            worker_prefetch_multiplier=100,
            worker_hijack_root_logger=False,
            broker_transport_options={"priority_steps": list(range(10)), "sep": "\x06\x16"},
        )

        def noop(data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])

        def fail_once(task: Any, data: dict[str, Any]) -> None:
            self.tally.hit(data["t"])
            if task.request.retries == 0:
                raise RuntimeError("the first attempt fails")

        self.tasks = {
            "noop": app.task(name="noop")(noop),
            "fail_once": app.task(
                name="fail_once",
                bind=True,
                autoretry_for=(RuntimeError,),
                max_retries=1,
                default_retry_delay=0,
                retry_backoff=False,
            )(fail_once),
        }

    def open(self) -> None:
        self.app.connection().ensure_connection()

    def add(
        self, data: dict[str, Any], *, name: str = "noop", delay: float = 0, priority: int = 0, **_: Any
    ) -> Any:
        # Its priorities are 0 to 9, of which 0 runs first.
        return self.tasks[name].apply_async(
            (data,), countdown=delay or None, priority=priority - 1 if priority else None
        )

    def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        self.tally = tally
        worker = self.app.Worker(
            pool="threads",
            concurrency=threads or THREADS,
            loglevel="ERROR",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            hostname="bench@%n",
            quiet=True,
        )
        worker.start()


if __name__ == "__main__":
    main(CeleryQueue)
