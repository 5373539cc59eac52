"""The look at a queue's invariants: a queue in use breaks none, and each way to break one is seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
import redis.asyncio

from tests.patience import like
from toril import Deduplication, Exponential, FlowJob, FlowProducer, Job, NewJob, Queue, Worker
from toril.embedded import EmbeddedServer
from toril.fsck import Replay, Violation, check, reading, violations
from toril.scripts import Fetch, FinishedJob


async def fetch(queue: Queue, token: str = "t") -> str:
    (job,) = (await queue.scripts.move_to_active(queue.clock.now_ms(), Fetch(1, token, 60_000))).jobs
    return job[0]


@pytest.fixture
async def filled(queue: Queue, prefix: str) -> Queue:
    """A queue with a job in every state, by name; `run` has a lock of a minute."""
    for job_id in ("run", "done", "lost"):
        await queue.add("job", {}, job_id=job_id)
    assert [await fetch(queue) for _ in range(3)] == ["run", "done", "lost"]
    ends = [
        FinishedJob("done", "t", "completed", "1"),
        FinishedJob("lost", "t", "failed", "no", attempts=1),
    ]
    await queue.scripts.move_to_finished(queue.clock.now_ms(), ends, Fetch(0, "t", 1))
    await queue.add("job", {}, job_id="first", deduplication=Deduplication("d"))
    await queue.add("job", {}, job_id="ranked", priority=3)
    await queue.add("job", {}, job_id="late", delay=60)
    flows = FlowProducer(connection=queue.connection, prefix=prefix)
    child = FlowJob("job", "elsewhere", None, {"job_id": "child"})
    await flows.add(FlowJob("job", queue.name, None, {"job_id": "parent"}, [child]))
    await queue.upsert_job_scheduler("tick", every=60, offset=1)
    return queue


async def look(queue: Queue, *, at_rest: bool = False) -> list[Violation]:
    return await check(queue.connection, queue.name, queue.keys.prefix, at_rest=at_rest)


async def test_a_queue_with_a_job_in_every_state_is_sound(filled: Queue) -> None:
    """Nothing is reported, and nothing is written."""
    before = await filled.connection.client.dbsize()

    assert await look(filled) == []
    assert await filled.connection.client.dbsize() == before


BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "in two states": ("I2", "first", ["ZADD @failed 5 first"]),
    "twice in a list": ("I2", "first", ["LPUSH @wait first"]),
    "a record in no state": ("I3", "first", ["LREM @wait 1 first"]),
    "an id without a record": ("I3", "ranked", ["DEL @ranked"]),
    "logs of nobody": ("I3", "nobody", ["RPUSH @nobody:logs row"]),
    "a key of another type": ("I3", "delayed", ["DEL @delayed", "SET @delayed 1"]),
    "a key that is nobody's": ("I3", "what:is:this:key", ["SADD @what:is:this:key 1"]),
    "ended without a time": ("I4", "done", ["HDEL @done finishedOn"]),
    "a time without an end": ("I4", "first", ["HSET @first finishedOn 5"]),
    "completed twice": ("I4", "done", ["XADD @events * event completed jobId done"]),
    "starts miscounted": ("I7", "run", ["HSET @run ats 2"]),
    "attempts miscounted": ("I7", "done", ["HSET @done atm 2"]),
    "a count that is none": ("I7", "run", ["HSET @run stc -1"]),
    "an event too few": ("I8", "first", ["LREM @wait 1 first", "ZADD @delayed 5 first"]),
    "an event too many": ("I8", "first", ["XADD @events * event delayed jobId first"]),
    "a lock without a run": ("I9", "first", ["SET @first:lock t PX 60000"]),
    "a lock for ever": ("I9", "run", ["PERSIST @run:lock"]),
    "a marker for nobody": ("I9", "marker", ["ZADD @marker 5 2"]),
    "a parent that is stuck": ("I11", "parent", ["DEL @parent:dependencies"]),
    "a child that is gone": ("I11", "parent", ["DEL <elsewhere:child"]),
    "a child of another": ("I11", "parent", ["HSET <elsewhere:child parentKey x"]),
    "a child that has completed": (
        "I11", "parent", ["LREM <elsewhere:wait 1 child", "ZADD <elsewhere:completed 5 child"],
    ),
    "a scheduler that is idle": ("I12", "repeat:tick", ["ZREM @delayed PENDING", "DEL @PENDING"]),
    "a scheduler that is planned for no time": ("I12", "repeat:tick", ["ZREM @repeat tick"]),
    "a run of no scheduler": ("I12", "PENDING", ["ZREM @repeat tick", "DEL @repeat:tick"]),
    "an id owned by nobody": ("I21", "de:d", ["LREM @wait 1 first", "DEL @first"]),
    "an id owned by one that has ended": (
        "I21", "de:d", ["LREM @wait 1 first", "ZADD @completed 5 first", "HSET @first finishedOn 5"],
    ),
    "a job kept for nothing": ("I21", "dn:e", ["HSET @dn:e jid 9 name job"]),
}  # fmt: skip


async def send(client: Any, command: str) -> None:
    await client.execute_command(*command.split(" "))


@pytest.mark.parametrize("how", BROKEN)
async def test_what_is_broken_is_seen(filled: Queue, client: redis.asyncio.Redis, how: str) -> None:
    """The violation names the invariant and the key that it is about."""
    invariant, key, commands = BROKEN[how]
    base = filled.keys.base
    pending = f"repeat:tick:{int(await client.zscore(base + 'repeat', 'tick') or 0)}"
    for command in commands:
        told = command.replace("PENDING", pending).replace("@", base).replace("<", f"{filled.keys.prefix}:")
        await send(client, told)

    found = await look(filled)

    expected = (invariant, base + key.replace("PENDING", pending))
    assert expected in {(one.invariant, one.key) for one in found}, [*map(str, found)]


async def test_at_rest_nothing_is_active(filled: Queue) -> None:
    """A job that is still active counts only where nobody works."""
    found = await look(filled, at_rest=True)

    assert [(one.invariant, one.key) for one in found] == [("I9", filled.keys.job("run"))]


async def test_events_that_were_trimmed_prove_nothing(filled: Queue, client: redis.asyncio.Redis) -> None:
    """A stream that begins in the middle of a job's life is read from there."""
    await client.xtrim(filled.keys.key("events"), maxlen=3, approximate=False)

    assert await look(filled) == []


def test_a_gap_in_the_events_forgets_what_was_before() -> None:
    """What was missed may have been the move that seems to be lacking."""
    added = {"event": "added", "jobId": "1"}
    completed = {"event": "completed", "jobId": "1"}

    assert [text for text, _ in Replay([added, completed]).jobs["1"].faults] == ["I8"]
    assert Replay([added, None, completed]).jobs["1"].faults == []


def test_nothing_is_sound() -> None:
    """A queue without keys breaks no invariant."""
    assert violations({}, "bull:q:", 0) == []


async def test_a_queue_in_use_is_sound(queue: Queue, prefix: str) -> None:
    """Workers, producers and flows at full speed are never reported, however often one looks."""
    runs = 0

    async def process(job: Job) -> None:
        nonlocal runs
        runs += 1
        if job.name == "flaky" and job.attempts_made == 0:
            raise ValueError("once")
        await asyncio.sleep(0)

    async def produce() -> None:
        flows = FlowProducer(connection=queue.connection, prefix=prefix)
        names = ["plain", "flaky", "late", "ranked"] * 20
        options = {
            "flaky": {"attempts": 2, "backoff": Exponential(base=0.001)},
            "late": {"delay": 0.01},
            "ranked": {"priority": 2, "remove_on_complete": True},
        }
        await queue.add_bulk([NewJob(name, {}, options.get(name, {})) for name in names])  # type: ignore[arg-type]
        tree = FlowJob("plain", queue.name, None, {}, [FlowJob("plain", queue.name) for _ in range(3)])
        await flows.add_bulk([tree] * 10)

    await queue.upsert_job_scheduler("tick", every=0.02)
    found: list[Violation] = []
    async with Worker(queue, process, concurrency=20), Worker(queue, process, concurrency=20):
        for _ in range(10):
            _, seen = await asyncio.gather(produce(), look(queue))
            found += seen

    assert found == []
    assert runs > 100


async def test_jobs_that_moved_are_not_searched_for_one_by_one(
    queue: Queue, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many suspects are mostly that: only those that are suspected a second time are looked for in long lists."""
    await queue.add_bulk([("job", None)] * 300)
    await client.delete(queue.keys.job("7"))
    wait, aside = queue.keys.key("wait"), queue.keys.key("toril:aside")
    read_all, look_again = reading._Reader.read_all, reading._Reader.look_again
    looked_at: list[str] = []
    is_first = True

    async def moving(reader: Any) -> None:
        nonlocal is_first
        was_first, is_first = is_first, False
        if was_first:
            await client.rename(wait, aside)
        await read_all(reader)
        if was_first:
            await client.rename(aside, wait)
            await client.lpush(wait, "8")

    async def noted(reader: Any, suspects: Any) -> Any:
        looked_at.extend(one.key for one in suspects)
        return await look_again(reader, suspects)

    monkeypatch.setattr(reading._Reader, "read_all", moving)
    monkeypatch.setattr(reading._Reader, "look_again", noted)
    assert await look(queue) == []
    assert looked_at == []
    assert [one.key for one in await look(queue)] == [queue.keys.job("7"), queue.keys.job("8")]


async def test_very_many_faults_are_all_found(queue: Queue, client: redis.asyncio.Redis) -> None:
    """They are there at the second look, too."""
    jobs = await queue.add_bulk([("job", None)] * 300)
    await client.delete(*(queue.keys.job(job.id) for job in jobs))

    assert len(await look(queue)) == 300


async def test_a_full_server_is_looked_at_all_the_same(server: EmbeddedServer) -> None:
    """Redis lets nobody queue commands in a transaction when its memory is full, not even those that only read."""
    with like(server, maxmemory_policy="noeviction") as own, redis.Redis.from_url(own.url) as client:
        async with Queue("q", connection=own.url) as queue:
            await queue.add("job", {}, job_id="spoilt")
            client.delete("bull:q:spoilt")
            client.config_set("maxmemory", "1mb")
            found = await look(queue)
            assert {(one.invariant, one.key) for one in found} == {("I3", "bull:q:spoilt")}, found
