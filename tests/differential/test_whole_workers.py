"""Both clients' real workers on the same jobs, loops and all: what they leave is the same apart from the times."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis

from tests.interop.node import Node, NodeWorker
from toril import DelayedError, Exponential, Job, NewJob, Queue, QueueEvents, UnrecoverableError, Worker

from . import keyspace
from .keyspace import Keyspace

Json = Any

JOBS: dict[str, list[NewJob]] = {
    "plain": [NewJob("work", {"i": i}) for i in range(5)],
    "failing": [NewJob("fail"), NewJob("work"), NewJob("fail", None, {"attempts": 3}), NewJob("work")],
    "giving up": [NewJob("give up", None, {"attempts": 3}), NewJob("work")],
    "failing once": [NewJob("flaky", None, {"attempts": 2}), NewJob("work"), NewJob("work")],
    "failing once, lifo": [NewJob("flaky", None, {"attempts": 2, "lifo": True}), NewJob("work")],
    "failing once, prioritized": [
        NewJob("flaky", None, {"attempts": 2, "priority": 2}),
        NewJob("work", None, {"priority": 2}),
    ],
    "backing off": [NewJob("flaky", None, {"attempts": 2, "backoff": Exponential(0.05)}), NewJob("work")],
    "backing off alone": [NewJob("flaky", None, {"attempts": 2, "backoff": 0.05})],
    "in steps": [NewJob("steps"), NewJob("work")],
    "delayed": [NewJob("work", None, {"delay": 0.4}), NewJob("work"), NewJob("work", None, {"delay": 0.2})],
    "kept by count": [NewJob("work", None, {"remove_on_complete": 2}) for _ in range(5)],
    "not kept": [NewJob(name, None, {"remove_on_complete": True, "remove_on_fail": True}) for name in ("work", "fail")],
    "telling": [NewJob("tell", None, {"keep_logs": 2}), NewJob("tell")],
}  # fmt: skip

NODE_SCRIPTS: dict[str, Json] = {
    "work": [[]],
    "fail": [[["throw", {"message": "boom"}]]],
    "give up": [[["throw", {"message": "boom", "unrecoverable": True}]]],
    "flaky": [[["throw", {"message": "boom"}]], [["return", "at last"]]],
    "steps": [[["data", {"step": 2}], ["delay", 50]], []],
    "tell": [
        [["progress", 10], ["log", "a"], ["log", "b"], ["log", "c"], ["progress", {"a": 1}], ["return", None]]
    ],
}


async def process(job: Job) -> Json:
    """Do what `NODE_SCRIPTS` say."""
    match job.name, job.attempts_started:
        case ("fail", _) | ("flaky", 1):
            raise ValueError("boom")
        case "give up", _:
            raise UnrecoverableError("boom")
        case "flaky", _:
            return "at last"
        case "steps", 1:
            await job.update_data({"step": 2})
            raise DelayedError(0.05)
        case "tell", _:
            await job.update_progress(10)
            for row in "abc":
                await job.log(row)
            await job.update_progress({"a": 1})
            return None
        case _:
            return job.data


@pytest.mark.parametrize("case", JOBS)
async def test_whole_workers_leave_the_same(
    server_url: str, turned_node: Node, prefix: str, case: str
) -> None:
    """Both workers run the jobs in the same order to the same ends, and tell the same events."""
    await turned_node.ask("clock", now=None)
    prefixes = f"{prefix}:node", f"{prefix}:toril"
    spaces: list[Keyspace] = []
    for side in prefixes:
        async with Queue("q", connection=server_url, prefix=side) as queue:
            # Paused, so that none of the jobs starts before the last one is there.
            await queue.pause()
            await queue.add_bulk(JOBS[case])
            worker = (
                NodeWorker(turned_node, "q", NODE_SCRIPTS, prefix=side, name="w")
                if side == prefixes[0]
                else Worker(queue, process, name="w")
            )
            async with worker:
                await queue.resume()
                await _until_all_ended(queue, len(JOBS[case]))
        with redis.Redis.from_url(server_url, decode_responses=True) as client:
            spaces.append(_timeless(keyspace.read(client, f"{side}:")))

    assert keyspace.difference(*spaces) == []


async def _until_all_ended(queue: Queue, jobs: int) -> None:
    """Return when so many jobs have ended, and the event after that has been told."""
    async with asyncio.timeout(15):
        async with QueueEvents(
            "q", connection=queue.connection, prefix=queue.prefix, last_event_id="0-0"
        ) as events:
            async for event in events:
                jobs -= event.name in ("completed", "failed")
                if jobs == 0:
                    return


TIMES = {"timestamp", "processedOn", "finishedOn"}


def _timeless(space: Keyspace) -> Keyspace:
    """Leave out what two runs cannot share: times, traces, the check for stalled jobs, markers that wait."""
    space = {key: value for key, value in space.items() if key not in ("q:marker", "q:stalled-check")}
    for key, value in space.items():
        match value["type"], key:
            case "hash", _:
                fields: dict[str, Json] = value["content"]
                for name in TIMES & fields.keys():
                    fields[name] = "a time"
                if "stacktrace" in fields:
                    fields["stacktrace"] = len(json.loads(fields["stacktrace"]))
            case "zset", ("q:completed" | "q:failed"):
                # Those that ended within one ms stand in the order of their ids.
                value["content"] = sorted(member for member, _ in value["content"])
            case "stream", _:
                value["content"] = [
                    [
                        "a time" if name == "delay" else part
                        for name, part in zip(["", *entry], entry, strict=False)
                    ]
                    for entry in value["content"]
                ]
            case _:
                pass
    return space
