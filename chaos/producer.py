"""A producer as a process of its own: adds a mixed load, and writes into the ledger what it was told.

`python -m chaos.producer OPTIONS`, a JSON object: url, queue, ledger, rate (jobs per second), count (at least so many),
seed, flow_every, those of `shape`, of which keep says how many completed jobs stay, and doom_every how many jobs there
are to one that fails for good; with bulk (a number) it adds plain jobs, so many at a time. It goes on until SIGTERM,
then ends in good order. A job has an id of its own, so an `add` whose answer was lost is repeated until one comes; but
unless `is_varied` is false, one in ten is given its id by the server, and it is for toril alone to add it once. Of 50
jobs three have one deduplication id: the first of them is delayed, so the others find it there.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import Awaitable
from typing import Any

from toril import (
    ConnectionLostError,
    Deduplication,
    FlowJob,
    FlowProducer,
    Job,
    JobOptions,
    NewJob,
    Queue,
    ServerRefusedError,
    ServerUnreachableError,
    TorilError,
)

from .ledger import Ledger
from .pace import at_rate


def shape(
    number: int, chance: random.Random, options: dict[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """One job of the load: its id, its data, its options. 200 bytes or so."""
    data: dict[str, Any] = {"n": number, "ms": chance.uniform(*options.get("ms", (2, 30))), "pad": "x" * 140}
    settings: dict[str, Any] = {}
    if number % 10 == 3:
        settings["delay"] = round(chance.uniform(0, 2), 3)
    elif number % 10 == 5:
        settings["priority"] = chance.randint(1, 100)
    elif number % 10 == 7:
        data["fails"] = 1
        settings["attempts"] = 3
        settings["backoff"] = 0.05
    elif number % 50 in (12, 14, 18) and options.get("is_varied", True):
        settings["deduplication"] = Deduplication(f"{options.get('tag', 'j')}-{number // 50}")
        if number % 50 == 12:
            settings["delay"] = 0.2
    if options.get("keep"):
        settings["remove_on_complete"] = options["keep"]
    if options.get("doom_every") and number % options["doom_every"] == 9:
        data["fails"] = settings["attempts"] = 2
        settings["backoff"] = 0.05
    every = options.get("block_every")
    if every and number % every == 0:
        data["block"] = options.get("block", 0)
        data["gil"] = options.get("gil", 0)
        data["hang"] = options.get("hang", False)
        if harms := options.get("harms"):
            data["harm"] = harms[number // every % len(harms)]
    return f"{options.get('tag', 'j')}-{number}", data, settings


async def main(options: dict[str, Any]) -> None:
    book = Ledger(options["ledger"], "producer")
    chance = random.Random(options["seed"])
    is_over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    async with Queue(options["queue"], connection=options["url"]) as queue:
        flows = FlowProducer(connection=queue.connection)

        async def add(number: int) -> None:
            job_id, data, settings = shape(number, chance, options)
            facts = {"delay": settings.get("delay", 0), "fails": data.get("fails", 0)}
            if settings.get("attempts", 9) <= facts["fails"]:
                # All of its attempts fail; the last of them is no extra start.
                facts.update(fails=facts["fails"] - 1, is_doomed=True)
            keep = options.get("keep")
            members = [job_id]
            if number % options.get("flow_every", 20) == 1:
                members += [f"{job_id}-{child}" for child in "abc"]
            facts["is_plain"] = len(members) == 1 and not settings.keys() & {"delay", "priority"}
            is_unnamed = number % 10 == 6 and options.get("is_varied", True)
            if is_unnamed:
                data["unnamed"] = job_id
            for member in members:
                known = facts if member == job_id else {"delay": 0, "fails": 0}
                book.write("sent", id=member, keep=keep, **known)
            # Bounded by the cell's own deadline: the driver kills a producer that does not end.
            while True:
                try:
                    if len(members) > 1:
                        await flows.add(flow(members, data, settings, options))
                    elif is_unnamed:
                        given = (await queue.add("work", data, **settings)).id
                        book.write("acked", id=job_id, given=given)
                        return
                    elif by := await _is_shared(queue.add("work", data, job_id=job_id, **settings), job_id):
                        book.write("shared", id=job_id, by=by)
                        return
                except (ConnectionLostError, ServerRefusedError) as error:
                    is_known = isinstance(error, (ServerUnreachableError, ServerRefusedError))
                    if is_unnamed and not is_known:
                        book.write("unknown", id=job_id, why=f"{type(error).__name__}: {error}"[:200])
                        return
                    book.write("again", id=job_id, why=f"{type(error).__name__}: {error}"[:200])
                    await asyncio.sleep(0.05 + 0.1 * chance.random())
                    continue
                except TorilError as error:
                    for member in members:
                        book.write("refused", id=member, why=f"{type(error).__name__}: {error}"[:200])
                    return
                for member in members:
                    book.write("acked", id=member)
                return

        async def add_bulk(number: int) -> None:
            size = options["bulk"]
            plain = {**options, "is_varied": False}
            jobs = [shape((number - 1) * size + at, chance, plain) for at in range(1, size + 1)]
            for job_id, data, settings in jobs:
                book.write("sent", id=job_id, delay=settings.get("delay", 0), fails=data.get("fails", 0))
            await queue.add_bulk(
                NewJob("work", data, {"job_id": job_id, **settings})  # type: ignore[typeddict-item]
                for job_id, data, settings in jobs
            )
            for job_id, _, _ in jobs:
                book.write("acked", id=job_id)

        if "bulk" in options:
            number = 0
            while not is_over.is_set():
                number += 1
                await add_bulk(number)
            return

        count = await at_rate(
            add,
            options["rate"],
            is_over,
            least=options.get("count", 0),
            in_flight=options.get("in_flight", 200),
        )
    book.write("done", count=count)


async def _is_shared(adding: Awaitable[Job], job_id: str) -> str | None:
    """The id of the job that was there already; None where this one was added."""
    added = (await adding).id
    return None if added == job_id else added


def flow(
    members: list[str], data: dict[str, Any], settings: dict[str, Any], options: dict[str, Any]
) -> FlowJob:
    """A parent and its children."""
    queue = options["queue"]
    rules: JobOptions = {"remove_on_complete": options["keep"]} if options.get("keep") else {}
    children = [FlowJob("work", queue, {"ms": 2}, {**rules, "job_id": child}) for child in members[1:]]
    return FlowJob("work", queue, data, {"job_id": members[0], **settings}, children)  # type: ignore[typeddict-item]


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
