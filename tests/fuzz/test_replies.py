"""Every error that a server can answer, wherever it is asked: a type for the caller, no loss for the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.fuzz.proxy import open_door
from tests.patience import within
from toril import (
    AuthenticationError,
    ConnectionLostError,
    FlowJob,
    FlowProducer,
    Queue,
    QueueEvents,
    ServerRefusedError,
    Worker,
)
from toril.embedded import EmbeddedServer
from toril.scripts import load

ERRORS = {
    "MOVED": "MOVED 3999 127.0.0.1:1",
    "ASK": "ASK 3999 127.0.0.1:1",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "READONLY": "READONLY You can't write against a read only replica.",
    "BUSY": "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "NOSCRIPT": "NOSCRIPT No matching script.",
    "NOPERM": "NOPERM User x has no permissions to run the 'evalsha' command",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF": "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED": "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "WRONGTYPE": "WRONGTYPE Operation against a key holding the wrong kind of value",
    "unknown": "WHATEVER something that no version has said yet",
    "empty": "",
}


def command(name: str) -> Callable[[list[bytes]], bool]:
    return lambda args: args[0].upper() == name.encode()


def script(name: str) -> Callable[[list[bytes]], bool]:
    known = load(name)
    return lambda args: (
        args[0] in (b"EVALSHA", b"EVAL") and args[1] in (known.sha.encode(), known.text.encode())
    )


PREFIX = "replies"


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    """The errors are the same whatever is behind the door, so one kind of server is enough."""
    with EmbeddedServer() as server:
        yield server


Act = Callable[[Queue], Awaitable[Any]]
CALLS: dict[str, tuple[Callable[[list[bytes]], bool], Act]] = {
    "time": (command("TIME"), lambda queue: queue.add("a")),
    "add": (script("add_job"), lambda queue: queue.add("a")),
    "add_bulk": (script("add_job"), lambda queue: queue.add_bulk([("a", 1)] * 3)),
    "flow": (
        script("add_job"),
        lambda queue: FlowProducer(connection=queue.connection, prefix=queue.prefix).add(
            FlowJob("a", queue.name, children=[FlowJob("b", queue.name)])
        ),
    ),
    "exec": (
        command("EXEC"),
        lambda queue: FlowProducer(connection=queue.connection, prefix=queue.prefix).add(
            FlowJob("a", queue.name)
        ),
    ),
    "get_job": (command("HGETALL"), lambda queue: queue.get_job("1")),
    "state": (script("get_state"), lambda queue: queue.get_job_state("1")),
    "pause": (script("pause"), lambda queue: queue.pause()),
    "scheduler": (script("upsert_job_scheduler"), lambda queue: queue.upsert_job_scheduler("s", every=60)),
}


@pytest.mark.parametrize("error", ERRORS)
async def test_a_caller_gets_a_type(own_server: EmbeddedServer, error: str) -> None:
    """Wherever it is met: nothing was done, nothing is half-written, and the next call works."""
    async with open_door(own_server.port) as door:
        for name, (rule, act) in CALLS.items():
            async with Queue(
                f"{error}-{name}", connection=f"redis://127.0.0.1:{door.port}", prefix=PREFIX
            ) as queue:
                # A server forgets a script once; then it is sent again, and the caller never hears of it.
                is_healed = error == "NOSCRIPT" and name not in ("time", "exec", "flow", "get_job")
                door.refuse(rule, ERRORS[error], 1 if is_healed else 20)
                before = door.refused
                if not is_healed:
                    with pytest.raises(AuthenticationError if error == "NOPERM" else ServerRefusedError):
                        await act(queue)
                    assert door.refused > before, f"{name} does not do what it stands for"
                    door.refuse(rule, "", 0)
                    client = queue.connection.client
                    records = [key async for key in client.scan_iter(match=f"{queue.keys.base}*-*-*")]
                    assert records == [], (name, records)
                await act(queue)


NONSENSE = [
    b"$-1\r\n",
    b"*-1\r\n",
    b"_\r\n",
    b":0\r\n",
    b"*0\r\n",
    b"+OK\r\n",
    b"$3\r\nabc\r\n",
    b"%1\r\n+a\r\n:1\r\n",
]
"""Answers that no server gives to a script of toril's, but what stands between might."""


@pytest.mark.parametrize("name", ["add", "add_bulk"])
async def test_an_answer_that_says_nothing_is_no_answer(own_server: EmbeddedServer, name: str) -> None:
    """Who adds hears that nothing is known of his job, and does not wait for ever; the next call works."""
    rule, act = CALLS[name]
    async with open_door(own_server.port) as door:
        url = f"redis://127.0.0.1:{door.port}"
        async with Queue(f"nonsense-{name}", connection=url, prefix=PREFIX) as queue:
            for answer in NONSENSE:
                await act(queue)
                door.answer(rule, answer, 1)
                async with within(f"an error after {answer!r}"):
                    with pytest.raises(ConnectionLostError, match="is something between it and this program"):
                        await act(queue)
            await act(queue)


SITES: dict[str, Callable[[list[bytes]], bool]] = {
    "fetch": script("move_to_active"),
    "finish": script("move_to_finished"),
    "retry": script("retry_job"),
    "delay": script("move_to_delayed"),
    "stalled": script("move_stalled_jobs_to_wait"),
    "locks": script("extend_locks"),
    "wait": command("BZPOPMIN"),
    "events": command("XREAD"),
}


@pytest.mark.parametrize("site", SITES)
async def test_a_worker_goes_on(own_server: EmbeddedServer, site: str) -> None:
    """After each of these errors, met twice in a row: every job runs to its end, once for each of its attempts."""
    runs: dict[str, int] = {}

    async def process(job: Any) -> int:
        runs[job.id] = runs.get(job.id, 0) + 1
        if site == "locks":
            # Longer than its lock, which is renewed all the same.
            await asyncio.sleep(0.3)
        if job.data and runs[job.id] == 1:
            raise ValueError("the first time")
        return int(runs[job.id])

    async with open_door(own_server.port) as door:
        url = f"redis://127.0.0.1:{door.port}"
        async with Queue(site, connection=url, prefix=PREFIX) as queue:
            options: dict[str, Any] = {
                "stalled_interval": 0.05,
                "lock_duration": 0.4 if site == "locks" else 1,
            }
            async with (
                QueueEvents(site, connection=url, prefix=PREFIX),
                Worker(queue, process, concurrency=3, **options),
            ):
                for name, error in ERRORS.items():
                    if (site, name) == ("events", "NOPERM"):
                        # Who may not listen hears so.
                        continue
                    if site == "wait" and name not in ("MOVED", "READONLY", "LOADING", "UNBLOCKED"):
                        # Idle workers are patient: each error costs seconds, and all go the same way.
                        continue
                    door.refuse(SITES[site], error, 2)
                    async with within(f"the jobs after {name} at {site}"):
                        plain = await queue.add("a")
                        at_once = await queue.add("a", 1, attempts=2)
                        later = await queue.add("a", 1, attempts=2, backoff=0.01)
                        assert [await one.result() for one in (plain, at_once, later)] == [1, 2, 2]
        assert door.refused > 0
