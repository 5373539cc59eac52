"""BullMQ's Python port: a worker and a producer as processes of their own.

The load and the ledger are those of `chaos/worker.py` and `chaos/producer.py`.
`python -m chaos.peers.bullmq_python worker|producer OPTIONS`, in chaos/.venv.

A worker closes on SIGTERM; `close` waits for what runs, so the grace is given here.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from typing import Any

from bullmq import FlowProducer, Queue, Worker

from chaos.ledger import Ledger
from chaos.pace import at_rate


async def work(options: dict[str, Any]) -> None:
    book = Ledger(options["ledger"], "worker")
    pid = os.getpid()
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, is_over.set)

    async def process(job: Any, token: str) -> str:
        run = job.attemptsStarted
        book.write("start", id=job.id, run=run, pid=pid)
        if job.data.get("pill"):
            os._exit(1)
        if job.data.get("block"):
            time.sleep(job.data["block"])  # noqa: ASYNC251 - on purpose
        await asyncio.sleep(job.data.get("ms", 0) / 1000)
        if job.attemptsMade < job.data.get("fails", 0):
            book.write("end", id=job.id, run=run, pid=pid, failed=True)
            raise ValueError("this attempt is to fail")
        book.write("end", id=job.id, run=run, pid=pid)
        return f"{pid}:{run}"

    worker = Worker(
        options["queue"],
        process,
        {
            "connection": options["url"],
            "concurrency": options["concurrency"],
            "lockDuration": round(options["lock_duration"] * 1000),
            "stalledInterval": round(options["stalled_interval"] * 1000),
            "maxStalledCount": options["max_stalled_count"],
        },
    )
    worker.on("error", lambda error, *_: book.write("error", pid=pid, what=type(error).__name__))
    book.write("ready", pid=pid)
    await is_over.wait()
    await asyncio.wait([asyncio.ensure_future(worker.close())], timeout=options["grace"])
    book.write("stopped", pid=pid)
    os._exit(0)


async def produce(options: dict[str, Any]) -> None:
    book = Ledger(options["ledger"], "producer")
    chance = random.Random(options["seed"])
    is_over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    queue = Queue(options["queue"], {"connection": options["url"]})
    flows = FlowProducer(options["url"])
    keep = options.get("keep")

    async def add(number: int) -> None:
        data = {"n": number, "ms": chance.uniform(*options.get("ms", (2, 30))), "pad": "x" * 140}
        job_id = f"{options.get('tag', 'j')}-{number}"
        settings: dict[str, Any] = {"jobId": job_id}
        if number % 10 == 3:
            settings["delay"] = round(chance.uniform(0, 2000))
        elif number % 10 == 5:
            settings["priority"] = chance.randint(1, 100)
        elif number % 10 == 7:
            data["fails"] = 1
            settings |= {"attempts": 3, "backoff": {"type": "fixed", "delay": 50}}
        if keep:
            settings["removeOnComplete"] = keep
        every = options.get("block_every")
        if every and number % every == 0:
            data["block"] = options["block"]
        children = (
            [f"{job_id}-{child}" for child in "abc"] if number % options.get("flow_every", 20) == 1 else []
        )
        book.write(
            "sent", id=job_id, delay=settings.get("delay", 0) / 1000, fails=data.get("fails", 0), keep=keep
        )
        for child in children:
            book.write("sent", id=child, delay=0, fails=0, keep=keep)
        while True:
            try:
                if children:
                    own = {"removeOnComplete": keep} if keep else {}
                    leaves = [
                        {
                            "name": "work",
                            "queueName": options["queue"],
                            "data": {"ms": 2},
                            "opts": {**own, "jobId": child},
                        }
                        for child in children
                    ]
                    await flows.add(
                        {
                            "name": "work",
                            "queueName": options["queue"],
                            "data": data,
                            "opts": settings,
                            "children": leaves,
                        }
                    )
                else:
                    await queue.add("work", data, settings)
            except Exception as error:
                book.write("again", id=job_id, why=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(0.05 + 0.1 * chance.random())
                continue
            for member in (job_id, *children):
                book.write("acked", id=member)
            return

    count = await at_rate(add, options["rate"], is_over, least=options.get("count", 0), in_flight=200)
    book.write("done", count=count)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run({"worker": work, "producer": produce}[sys.argv[1]](json.loads(sys.argv[2])))
