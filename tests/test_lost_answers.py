"""What a lost answer means is in a table of `docs/decisions/lost-answers.md`; here an answer of each script is lost.

A proxy in front of the server lets the call through and loses what comes back. Either toril sends it again and nobody
notices, or the caller hears of it, and may send it again himself without harm; or he may not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from chaos.proxy import Proxy, Rule
from tests.patience import ended, until, within
from toril import (
    Connection,
    ConnectionLostError,
    Deduplication,
    DelayedError,
    FlowJob,
    FlowProducer,
    Job,
    Parent,
    Queue,
    TransitionError,
    WaitingChildrenError,
    WaitingError,
    Worker,
    fsck,
)
from toril.embedded import EmbeddedServer
from toril.scripts import load

PAGE = Path(__file__).resolve().parents[1] / "docs" / "decisions" / "lost-answers.md"
CLASSES: dict[str, list[str]] = {
    line.split("|")[1].strip(): re.findall(r"`(\w+)`", line.split("|")[3])
    for line in PAGE.read_text().splitlines()
    if line.count("|") == 4 and "`" in line.split("|")[3]
}
BY_CALLER = CLASSES["idempotent, the caller may send it again"]
AGAIN = CLASSES["done again, the caller may send it again"]
NEVER = CLASSES["never sent twice"]
BY_TORIL = [name for names in CLASSES.values() for name in names if name not in (*BY_CALLER, *AGAIN, *NEVER)]
OF_LOCKS = ("extend_locks", "reclaim_locks")
OF_PRODUCERS = ("add_job", "release_parents", "upsert_job_scheduler")

Client = Any


@dataclass
class Line:
    """A queue beyond a proxy, and the same queue without one."""

    proxy: Proxy
    far: Queue
    near: Queue
    client: Client

    def lose(self, *names: str, nth: int | None = None, most: int | None = None) -> Rule:
        """Lose answers of these scripts: the n-th, or the first so many."""
        self.proxy.rule = rule = Rule(nth=nth, names=frozenset(names), most=most)
        return rule

    async def keys(self) -> dict[str, Any]:
        """What stands in the server, but events, and receipts of adds."""
        base, found = self.near.keys.base, dict[str, Any]()
        async for key in self.client.scan_iter(match=f"{base}*"):
            match await self.client.type(key):
                case "string":
                    content = await self.client.get(key)
                case "list":
                    content = await self.client.lrange(key, 0, -1)
                case "set":
                    content = await self.client.smembers(key)
                case "hash":
                    content = await self.client.hgetall(key)
                case "zset":
                    content = await self.client.zrange(key, 0, -1, withscores=True)
                case _:
                    continue
            if ":toril:" not in key:
                found[key.removeprefix(base)] = content
        return found


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    """What a script does twice is the same on all servers, so one is enough."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
async def line(own_server: EmbeddedServer) -> AsyncIterator[Line]:
    scripts = {name: load(name) for some in CLASSES.values() for name in some}
    names = {script.sha: name for name, script in scripts.items()}
    async with (
        Proxy(own_server.port, random.Random(1), names=names) as proxy,
        Connection(f"redis://127.0.0.1:{proxy.port}") as connection,
        Queue("tests", connection=own_server.url) as near,
        Queue("tests", connection=connection) as far,
        redis.asyncio.Redis.from_url(own_server.url, decode_responses=True) as client,
    ):
        for script in scripts.values():
            # Else what is lost is the answer that the script is not known.
            await client.script_load(script.text)
        yield Line(proxy, far, near, client)
        await client.flushdb()


# --- what workers and producers send again ---


@pytest.mark.parametrize("script", [name for name in BY_TORIL if name not in OF_PRODUCERS])
async def test_a_worker_whose_answers_are_lost(line: Line, script: str) -> None:
    """Every job runs as often as it would have, and ends as it would have; nothing stalls and nothing is counted."""
    starts: Counter[str] = Counter()
    wrongly_told: list[Any] = []

    async def process(job: Job) -> int:
        starts[job.name] += 1
        match job.name, starts[job.name]:
            case ("again", 1) | ("later", 1):
                raise ValueError("the first time")
            case ("put off", 1):
                raise DelayedError(timedelta(milliseconds=20))
            case ("given back", 1):
                raise WaitingError
            case ("parent", 1):
                await job.queue.add("child", parent=Parent(job.id, job.queue.qualified_name))
                raise WaitingChildrenError
            case ("long", 1):
                # Until its lock was renewed, also after a renewal whose answer was lost.
                if script == "reclaim_locks":
                    await line.client.delete(line.near.keys.job(job.id) + ":lock")
                if script in OF_LOCKS:
                    await asyncio.sleep(2.5)
            case ("writes", 1):
                await job.update_progress(5)
                await job.update_data({"n": 7})
            case _:
                pass
        return starts[job.name]

    add = line.near.add
    jobs = [
        await add("plain"),
        await add("again", attempts=2),
        await add("later", attempts=2, backoff=0.02),
        await add("put off"),
        await add("given back"),
        await add("parent"),
        await add("long"),
        await add("writes"),
        *[await add("crowd", n) for n in range(20)],
    ]
    run = await line.near.upsert_job_scheduler("s", every=0.3, limit=2, name="planned")
    assert run is not None
    # Adopting comes after a fetch whose answer was lost.
    wanted = ("move_to_active", script) if script == "adopt_jobs" else (script,)
    rule = line.lose(*wanted, most=1 if script in OF_LOCKS else 4)
    # A lock that is not renewed in time is lost, which is another story; here only answers are.
    lock, check = (2, 30) if script in OF_LOCKS else (30, 0.1)
    worker = Worker(line.far, process, concurrency=4, lock_duration=lock, stalled_interval=check)
    worker.on("stalled", wrongly_told.append)
    worker.on("lock_lost", wrongly_told.append)
    async with worker:
        results = await ended(*jobs)
        await until("the scheduler has made its runs", lambda: starts["planned"] == 2)
        if script != "hand_on_marker":
            # Some are called now and then. This one is the last word of a worker.
            await until(f"answers of {script} are lost", lambda: rule.hits[script] > 0)
    assert rule.hits[script] > 0

    twice = ("again", "later", "put off", "given back", "parent", "planned")
    assert starts == {
        **dict.fromkeys(twice, 2),
        **dict.fromkeys(("plain", "long", "writes", "child"), 1),
        "crowd": 20,
    }
    assert results[:8] == [1, 2, 2, 2, 2, 2, 1, 1]
    assert wrongly_told == []
    for job, counted in zip(jobs, (1, 2, 2, 1, 1, 1, 1, 1), strict=False):
        await job.refresh()
        assert (job.attempts_made, job.stalled_counter) == (counted, 0), job.name
    assert (jobs[7].progress, jobs[7].data) == (5, {"n": 7})
    assert [
        str(one) for one in await fsck.check(line.near.connection, line.near.name, prefix=line.near.prefix)
    ] == []


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("script", OF_PRODUCERS)
async def test_a_producer_whose_answer_is_lost(line: Line, script: str, nth: int) -> None:
    """A job, a list, a flow and a scheduler are there once."""
    rule = line.lose(script, nth=nth)
    flows = FlowProducer(connection=line.far.connection, prefix=line.far.prefix)
    name = line.near.name
    async with within("the adds"):
        await line.far.add("one")
        await line.far.add_bulk([("many", n) for n in range(3)])
        for _ in range(2):
            await flows.add(FlowJob("above", name, children=[FlowJob("below", name), FlowJob("below", name)]))
        for _ in range(2):
            await line.far.upsert_job_scheduler("s", every=60)

    assert rule.hits == {script: 1}
    counts = await line.near.get_job_counts()
    assert (counts["waiting"], counts["waiting-children"], counts["delayed"]) == (4 + 4 + 1, 2, 0)
    assert [str(one) for one in await fsck.check(line.near.connection, name, prefix=line.near.prefix)] == []


# --- what callers send again, or do not ---

Verb = Callable[[Queue], Awaitable[Any]]


async def of(queue: Queue, job_id: str) -> Job[Any]:
    return await queue.get_job_or_raise(job_id)


async def mend(queue: Queue) -> None:
    for one in await fsck.check(queue.connection, queue.name, prefix=queue.prefix):
        await fsck.repair(queue, one)


VERBS: dict[str, Verb] = {
    "add_log": lambda queue: queue.add_job_log("one", "a row"),
    "change_delay": lambda queue: _on(queue, "late", lambda job: job.change_delay(7200)),
    "change_priority": lambda queue: _on(queue, "one", lambda job: job.change_priority(3)),
    "clean": lambda queue: queue.clean(0, 0, "waiting"),
    "drain": lambda queue: queue.drain(delayed=True),
    "get_counts": lambda queue: queue.get_job_counts(),
    "get_dependencies": lambda queue: _on(queue, "parent", lambda job: job.get_dependencies()),
    "get_rate_limit_ttl": lambda queue: queue.get_rate_limit_ttl(),
    "get_state": lambda queue: queue.get_job_state("one"),
    "move_jobs_to_wait": lambda queue: queue.retry_jobs(),
    "obliterate": lambda queue: queue.obliterate(force=True),
    "pause": lambda queue: queue.pause(),
    "promote": lambda queue: _on(queue, "late", lambda job: job.promote()),
    "read_together": lambda queue: fsck.check(queue.connection, queue.name, prefix=queue.prefix),
    "remove_child_dependency": lambda queue: _on(queue, "child-0", lambda job: job.remove_child_dependency()),
    "remove_deduplication_key": lambda queue: queue.remove_deduplication_key("d"),
    "remove_job": lambda queue: queue.remove("parent"),
    "remove_job_scheduler": lambda queue: queue.remove_job_scheduler("s"),
    "remove_orphaned_jobs": lambda queue: queue.remove_orphaned_jobs(),
    "remove_unprocessed_children": lambda queue: _on(
        queue, "parent", lambda job: job.remove_unprocessed_children()
    ),
    "repair": mend,
    "reprocess_job": lambda queue: _on(queue, "broken", lambda job: job.retry()),
}


IN_STEPS = ("clean", "drain", "obliterate", "remove_orphaned_jobs")


async def _on(queue: Queue, job_id: str, verb: Callable[[Job[Any]], Awaitable[Any]]) -> Any:
    return await verb(await of(queue, job_id))


async def furnish(line: Line) -> None:
    """A job for each of the verbs."""
    queue = line.near
    flows = FlowProducer(connection=queue.connection, prefix=queue.prefix)
    await queue.add("fails", job_id="broken")

    def fail(job: Job) -> None:
        raise ValueError(job.id)

    async with Worker(queue, fail):
        await ended(await of(queue, "broken"))
    await queue.add("a", job_id="one", deduplication=Deduplication("d"))
    for n in range(3):
        await queue.add("a", job_id=f"more-{n}")
    await queue.add("a", job_id="late", delay=3600)
    children = [FlowJob("c", queue.name, None, {"job_id": f"child-{n}"}) for n in range(2)]
    await flows.add(FlowJob("p", queue.name, None, {"job_id": "parent"}, children))
    await queue.upsert_job_scheduler("s", every=3600)
    await queue.rate_limit(3600)
    # A lock that nobody holds, to be mended; and a record in no list.
    await line.client.set(queue.keys.job("more-2") + ":lock", "gone")
    await line.client.hset(queue.keys.job("orphan"), mapping={"name": "a", "data": "{}", "opts": "{}"})


def test_there_is_a_verb_for_each() -> None:
    """Whoever puts a script into one of the classes says here how it is called."""
    assert sorted(VERBS) == sorted([*BY_CALLER, *AGAIN, *NEVER])


@pytest.mark.parametrize("script", VERBS)
async def test_a_caller_whose_answer_is_lost(line: Line, script: str) -> None:
    """He hears of it after one call, which was heard; the same again leaves the same, unless the table says never."""
    await furnish(line)
    before = await line.keys()
    rule = line.lose(script)
    with pytest.raises(ConnectionLostError):
        await VERBS[script](line.far)
    assert rule.hits == {script: 1}
    line.proxy.rule = None
    after = await line.keys()
    is_question = script.startswith(("get_", "read_"))
    assert (before == after) == is_question, "the call that was lost did nothing"

    await again(line, script)
    second = await line.keys()
    if script in IN_STEPS:
        # What was broken off has gone on; now there is nothing left to do.
        await again(line, script)
        after, second = second, await line.keys()
    assert (second == after) == (script in BY_CALLER)


async def again(line: Line, script: str) -> None:
    # A refusal is an answer, too.
    with contextlib.suppress(TransitionError):
        await VERBS[script](line.far)
