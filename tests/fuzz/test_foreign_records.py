"""Whatever others have left in the server: workers go on, poisoned jobs end as failed, and the good ones are done.

Each example puts poisoned records among good jobs and lets a worker loose on them.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz import examples
from tests.patience import until, within
from toril import Queue, QueueEvents, ServerRefusedError, Worker
from toril.embedded import EmbeddedServer
from toril.keys import QueueKeys

Client: TypeAlias = Any
Record = dict[str, str]

DEEP = "[" * 5000 + "]" * 5000
SPOILT = st.sampled_from(
    [
        "",
        "nan",
        "-inf",
        "1e400",
        "-5",
        "0x10",
        "abc",
        "9" * 40,
        "{}",
        "[]",
        "null",
        "true",
        DEEP,
        "\x00",
        "é" * 50,
    ]
)
OPTIONS = st.one_of(
    SPOILT,
    st.sampled_from(
        [
            '{"attempts":"3"}',
            '{"attempts":-1,"backoff":{"type":[]}}',
            '{"attempts":1e308,"backoff":"x"}',
            '{"attempts":2,"backoff":{"type":"unknown"}}',
            '{"removeOnComplete":{"count":-1,"age":-1,"limit":0}}',
            '{"removeOnFail":{"age":1e300},"removeOnComplete":"yes"}',
            '{"stackTraceLimit":-3,"kl":"x","lifo":[],"sizeLimit":null}',
            '{"de":{"id":5,"ttl":"x"},"parent":7,"repeat":[]}',
        ]
    ),
)
FIELDS: dict[str, st.SearchStrategy[str]] = {
    "name": st.sampled_from(["", "x" * 5000, "\x00", "<img src=x onerror=alert(1)>", "__proto__", "paint"]),
    "data": st.one_of(SPOILT, st.sampled_from(["{", '{"a":1,"a":2}', "NaN", '"\\ud800"', '{"__proto__":1}'])),
    "opts": OPTIONS,
    "timestamp": SPOILT,
    "delay": SPOILT,
    "priority": SPOILT,
    "ats": SPOILT,
    "atm": SPOILT,
    "attemptsMade": SPOILT,
    "stc": SPOILT,
    "defa": SPOILT,
    "deid": SPOILT,
    "rjk": SPOILT,
    "stacktrace": SPOILT,
    "returnvalue": SPOILT,
    "progress": SPOILT,
    "processedOn": SPOILT,
    "finishedOn": SPOILT,
    "parentKey": st.sampled_from(["", "x", "a:b", "bull:gone:1", ":::", "\x00"]),
    "parent": st.one_of(
        SPOILT, st.sampled_from(['{"id":1,"queueKey":[]}', '{"fpof":true}', '{"id":"a"}', "["])
    ),
}
RECORDS = st.fixed_dictionaries({}, optional=FIELDS)
# Something else where a record should be, or nothing at all.
POISONS = st.one_of(RECORDS, RECORDS, RECORDS, st.sampled_from(["list", "string", "zset", "missing"]))
PLACES = st.sampled_from(["wait", "prioritized", "delayed", "active"])
META = st.fixed_dictionaries(
    {},
    optional={
        "opts.maxLenEvents": SPOILT,
        "concurrency": st.sampled_from(["abc", "nan", "", "1000"]),
        "duration": SPOILT,
        "max": st.sampled_from(["abc", "1000000", ""]),
        "version": st.sampled_from(["bullmq:99.0.0", "", "\x00"]),
    },
)
LOOSE = st.sampled_from(["", "pc", "limiter", "metrics:completed", "stalled"])


@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(poisons=[({"priority": "nan"}, "delayed"), ("list", "delayed")], meta={}, loose="")
@example(
    poisons=[({"atm": "x", "name": "a", "opts": '{"attempts":3}'}, "wait")],
    meta={},
    loose="metrics:completed",
)
@example(poisons=[("list", "wait"), ({"stc": "x"}, "active"), ("zset", "active")], meta={}, loose="stalled")
@example(
    poisons=[({"parent": "[", "parentKey": "x"}, "wait")],
    meta={"max": "1000000", "duration": "nan"},
    loose="limiter",
)
@example(
    poisons=[({"data": DEEP}, "wait"), ({"opts": DEEP}, "prioritized")],
    meta={"opts.maxLenEvents": "x"},
    loose="pc",
)
@given(poisons=st.lists(st.tuples(POISONS, PLACES), min_size=1, max_size=6), meta=META, loose=LOOSE)
def test_poisoned_records_stop_nobody(
    server: EmbeddedServer, prefix: str, poisons: list[tuple[Any, str]], meta: Record, loose: str
) -> None:
    """Good jobs complete; poisoned ones complete or fail with a cause; nothing is left waiting or running."""
    asyncio.run(_run(server.url, prefix, poisons, meta, loose))


async def _run(url: str, prefix: str, poisons: list[tuple[Any, str]], meta: Record, loose: str) -> None:
    name = f"q{uuid.uuid4().hex[:8]}"
    async with Queue(name, connection=url, prefix=prefix) as queue:
        client: Client = queue.connection.client
        keys = queue.keys
        for number, (poison, place) in enumerate(poisons):
            await _poison(client, keys, f"poison-{number}", poison, place)
        if meta:
            await client.hset(keys.key("meta"), mapping=meta)
        if loose:
            # A key of the queue's own holds what nobody expects.
            if loose == "metrics:completed":
                await client.hset(keys.key(loose), mapping={"count": "x", "prevTS": "y", "prevCount": "z"})
            elif loose == "stalled":
                await client.sadd(keys.key(loose), "unknown", "", "poison-0", "0:old")
            else:
                await client.set(keys.key(loose), "abc")
        await client.rpush(keys.key("wait"), "0:1234")
        good = [await queue.add("good", number, priority=number % 2) for number in range(4)]
        worker = Worker(
            queue,
            _process,
            concurrency=3,
            metrics_points=60,
            lock_duration=1,
            stalled_interval=0.05,
            max_stalled_count=1,
        )
        async with worker, within(f"the good jobs among {poisons}, {meta}, {loose}"):
            for job in good:
                assert await job.result() == "done"
            await until("an empty queue", lambda: _is_empty(queue))
        for job in await queue.get_jobs(("completed", "failed")):
            assert job.failed_reason or await job.is_completed(), job.id
            _ = repr(job), job.stacktrace, job.attempts_made, job.timestamp, job.delay, job.priority
        await queue.obliterate(force=True)
        left = {key async for key in client.scan_iter(match=f"{keys.base}*")}
        if left:
            await client.delete(*left)


async def _process(job: Any) -> str:
    assert job.data is not None or job.data is None
    return "done"


async def _is_empty(queue: Queue) -> bool:
    counts = await queue.get_job_counts("waiting", "prioritized", "delayed", "active")
    return not any(counts.values())


async def _poison(client: Client, keys: QueueKeys, job_id: str, poison: Any, place: str) -> None:
    key = keys.job(job_id)
    match poison:
        case "list":
            await client.rpush(key, "x")
        case "string":
            await client.set(key, "x")
        case "zset":
            await client.zadd(key, {"x": 1})
        case "missing" | {}:
            pass
        case _:
            await client.hset(key, mapping=poison)
    match place:
        case "prioritized" | "delayed":
            await client.zadd(keys.key(place), {job_id: 4096})
        case _:
            # In `active` without a lock, as if its worker had died.
            await client.lpush(keys.key(place), job_id)


async def test_a_list_with_a_foreigner_in_it_is_still_a_list(queue: Queue, client: Client) -> None:
    """Looking at jobs leaves out what is none."""
    job = await queue.add("paint")
    await _poison(client, queue.keys, "spoilt", "list", "wait")

    assert [found.id for found in await queue.get_jobs("waiting")] == [job.id]


@pytest.mark.parametrize("key", ["wait", "meta", "events", "active"])
async def test_a_queue_whose_own_keys_are_spoilt_refuses_with_a_type(
    queue: Queue, client: Client, key: str
) -> None:
    """Nothing can be added to it; the caller hears of the server's refusal."""
    await client.set(queue.keys.key(key), "spoilt")
    await queue.set_global_concurrency(5) if key == "active" else None

    with pytest.raises(ServerRefusedError, match="WRONGTYPE"):
        await queue.add("paint")


@pytest.mark.parametrize("policy", ["fpof", "cpof", "idof", "rdof", ""])
@pytest.mark.parametrize("fails", [True, False])
async def test_jobs_that_are_each_others_parents_end(
    queue: Queue, client: Client, policy: str, fails: bool
) -> None:
    """A circle, and a job that is its own parent: each ends once, and the good job beside them is done."""
    keys = queue.keys
    for job_id, parent in (("a", "b"), ("b", "a"), ("self", "self")):
        link = {"id": parent, "queueKey": keys.qualified_name, **({policy: True} if policy else {})}
        record = {"name": "paint", "data": "{}", "opts": "{}", "timestamp": "1800000000000",
                  "parentKey": keys.job(parent), "parent": json.dumps(link)}  # fmt: skip
        await client.hset(keys.job(job_id), mapping=record)
        await client.sadd(keys.job(parent) + ":dependencies", keys.job(job_id))
        await client.lpush(keys.key("wait"), job_id)
    good = await queue.add("good")

    def process(job: Any) -> None:
        if fails and job.name == "paint":
            raise ValueError

    async with Worker(queue, process, stalled_interval=0.1):
        await within_end(queue, good.id)
    counts = await queue.get_job_counts()
    assert (counts["waiting"], counts["active"], counts["delayed"]) == (0, 0, 0)


async def within_end(queue: Queue, job_id: str) -> None:
    async def is_quiet() -> bool:
        counts = await queue.get_job_counts()
        return counts["waiting"] + counts["active"] + counts["prioritized"] == 0

    async with within("the good job"):
        await (await queue.get_job_or_raise(job_id)).result()
    await until("nothing waits or runs", is_quiet)


STRANGE_EVENTS: list[dict[Any, Any]] = [
    {"event": "teleported", "jobId": "1"},
    {"jobId": "1"},
    {"event": ""},
    {"event": "completed"},
    {"event": "completed", "jobId": "nobody", "returnvalue": "{"},
    {b"\xff": b"\xfe"},
]


async def test_events_that_nobody_knows_are_told_as_they_are(queue: Queue, client: Client) -> None:
    """They end no listener, and nobody's wait for a result."""
    async with QueueEvents(
        queue.name, connection=queue.connection, prefix=queue.prefix, last_event_id="0"
    ) as events:
        for fields in STRANGE_EVENTS:
            await client.xadd(queue.keys.key("events"), fields)
        job = await queue.add("good")
        async with Worker(queue, lambda job: 5), within("the result"):
            assert await job.result() == 5
        heard: list[str] = []
        async with within("the event"):
            async for event in events:
                heard.append(event.name)
                if event.name == "completed" and event.fields.get("jobId") == job.id:
                    break
    assert heard[:5] == ["teleported", "", "", "completed", "completed"]
