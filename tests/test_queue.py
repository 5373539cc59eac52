"""Queues as producers and operators see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from tests.conftest import TurnedClock
from tests.patience import like
from toril import (
    AuthenticationError,
    ConfigurationError,
    Connection,
    Custom,
    Exponential,
    Fixed,
    Job,
    JobNotFoundError,
    JobNotInStateError,
    KeepJobs,
    NewJob,
    Queue,
    SerializationError,
    ServerRefusedError,
    ServerUnreachableError,
    State,
    find_queues,
)
from toril.embedded import EmbeddedServer

Client = redis.asyncio.Redis


async def keys(client: Client, queue: Queue) -> set[str]:
    base = queue.keys.base
    return {str(key).removeprefix(base) async for key in client.scan_iter(match=f"{base}*", count=1000)}


async def calls(client: Client) -> int:
    """How many scripts the server has run."""
    stats: dict[str, Any] = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


async def known(queue: Queue) -> None:
    """Let the server know the script, so that no call has to be repeated."""
    await queue.add("first")


# Adding


async def test_an_added_job_is_told_back(queue: Queue) -> None:
    """`add` returns the job as it stands in the server."""
    job = await queue.add("paint", {"color": "red", "tags": []}, attempts=3)

    found = await queue.get_job(job.id)
    assert found is not None
    for each in (job, found):
        assert (each.id, each.name, each.data, each.options.attempts) == (
            "1",
            "paint",
            {"color": "red", "tags": []},
            3,
        )
        assert (each.delay, each.priority, each.attempts_made, each.progress) == (0, 0, 0, 0)
    assert found.timestamp == job.timestamp > 1_700_000_000_000
    assert await job.get_state() == "waiting"


async def test_no_data_is_an_empty_object(queue: Queue, client: Client) -> None:
    """As in Node."""
    job = await queue.add("paint")

    assert job.data == {}
    assert await client.hget(queue.keys.job(job.id), "data") == "{}"


async def test_jobs_run_in_the_order_of_the_line(queue: Queue) -> None:
    """FIFO, LIFO, by priority, and delayed, each where it belongs."""
    jobs = {
        "a": await queue.add("a"),
        "b": await queue.add("b"),
        "next": await queue.add("next", lifo=True),
        "low": await queue.add("low", priority=9),
        "high": await queue.add("high", priority=1),
        "later": await queue.add("later", delay=timedelta(hours=1)),
    }

    assert await queue.get_ids("waiting", ascending=True) == [jobs[name].id for name in ("next", "a", "b")]
    assert await queue.get_ids("prioritized", ascending=True) == [jobs[name].id for name in ("high", "low")]
    assert await queue.get_ids("delayed") == [jobs["later"].id]
    assert [await jobs[name].get_state() for name in ("a", "low", "later")] == [
        "waiting",
        "prioritized",
        "delayed",
    ]


async def test_an_id_of_ones_own_adds_once(queue: Queue) -> None:
    """The second add is answered with the id, and changes nothing."""
    first = await queue.add("mail", {"n": 1}, job_id="order-7")
    second = await queue.add("mail", {"n": 2}, job_id="order-7")

    assert first.id == second.id == "order-7"
    assert await queue.get_job_counts("waiting") == {"waiting": 1}
    job = await queue.get_job("order-7")
    assert job is not None
    assert job.data == {"n": 1}


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"attempts": 0}),
    (
        {"attempts": 5, "backoff": Exponential(base=2, jitter=0.5)},
        {"attempts": 5, "backoff": {"type": "exponential", "delay": 2000, "jitter": 0.5}},
    ),
    (
        {"backoff": Fixed(timedelta(seconds=1.5))},
        {"attempts": 0, "backoff": {"type": "fixed", "delay": 1500}},
    ),
    ({"backoff": 3}, {"attempts": 0, "backoff": {"type": "fixed", "delay": 3000}}),
    ({"backoff": Custom("mine")}, {"attempts": 0, "backoff": {"type": "mine", "delay": 0}}),
    ({"delay": timedelta(minutes=1)}, {"attempts": 0, "delay": 60_000}),
    ({"delay": 0.25}, {"attempts": 0, "delay": 250}),
    ({"priority": 2_097_151, "lifo": True}, {"attempts": 0, "priority": 2_097_151, "lifo": True}),
    ({"keep_logs": 5, "stack_trace_limit": 2}, {"attempts": 0, "kl": 5, "stackTraceLimit": 2}),
    ({"size_limit": 1000}, {"attempts": 0, "sizeLimit": 1000}),
    (
        {"remove_on_complete": True, "remove_on_fail": 50},
        {"attempts": 0, "removeOnComplete": True, "removeOnFail": 50},
    ),
    (
        {"remove_on_complete": KeepJobs(count=10, age=timedelta(days=1), limit=5)},
        {"attempts": 0, "removeOnComplete": {"count": 10, "age": 86_400, "limit": 5}},
    ),
    ({"timestamp": 1_800_000_000_000}, {"attempts": 0, "timestamp": 1_800_000_000_000}),
    ({"job_id": "a-1"}, {"attempts": 0, "jobId": "a-1"}),
]


@pytest.mark.parametrize(("given", "stored"), OPTIONS)
async def test_options_are_stored_under_bullmqs_names(
    queue: Queue, client: Client, given: dict[str, Any], stored: dict[str, Any]
) -> None:
    """Compact names, milliseconds (ages in seconds), nothing that was not given, no nulls."""
    job = await queue.add("paint", **given)

    text = await client.hget(queue.keys.job(job.id), "opts")
    assert json.loads(str(text)) == stored


async def test_defaults_hold_for_what_add_is_not_given(server_url: str, prefix: str) -> None:
    """A given option wins over the queue's."""
    async with Queue(
        "q", connection=server_url, prefix=prefix, default_job_options={"attempts": 3, "priority": 2}
    ) as queue:
        job = await queue.add("paint", priority=5)

        assert (job.options.attempts, job.priority) == (3, 5)
        assert (await queue.add("paint")).priority == 2


async def test_a_delay_counts_from_the_servers_time(server_url: str, prefix: str, clock: TurnedClock) -> None:
    """Timestamps are those of the queue's clock."""
    async with Queue("q", connection=server_url, prefix=prefix, clock=clock) as queue:
        job = await queue.add("paint", delay=10)

        assert job.timestamp == clock.now_ms()
        scores = await queue.connection.client.zrange(queue.keys.key("delayed"), 0, -1, withscores=True)
        assert scores == [(job.id, (clock.now_ms() + 10_000) * 4096)]


async def test_a_paused_queue_takes_jobs(queue: Queue) -> None:
    """They wait where they would wait otherwise."""
    await queue.pause()

    await queue.add("a")
    await queue.add("b", priority=1)
    await queue.add("c", delay=60)

    assert await queue.is_paused()
    assert await queue.get_job_counts("waiting", "prioritized", "delayed") == {
        "waiting": 1,
        "prioritized": 1,
        "delayed": 1,
    }
    await queue.resume()
    assert not await queue.is_paused()


async def test_a_list_of_jobs_is_one_call(queue: Queue, client: Client) -> None:
    """300 jobs with options of their own, in order, for the price of one round trip."""
    await known(queue)
    members = [NewJob("n", {"n": n}, {"priority": n % 3}) for n in range(300)]
    before = await calls(client)

    jobs = await queue.add_bulk(members)

    assert await calls(client) - before == 1
    assert [job.data["n"] for job in jobs] == list(range(300))
    assert [job.id for job in jobs] == [str(n) for n in range(2, 302)]
    assert (await queue.get_job_counts("waiting", "prioritized")) == {"waiting": 101, "prioritized": 200}


async def test_a_long_list_is_cut(queue: Queue, client: Client) -> None:
    """No call holds up the server: beyond 500 it is 64 a call, order kept."""
    await known(queue)
    before = await calls(client)

    jobs = await queue.add_bulk(("n", n) for n in range(1_201))

    assert await calls(client) - before == 19
    assert [job.data for job in jobs] == list(range(1_201))
    ids = await queue.get_ids("waiting", ascending=True)
    assert ids[1:] == [job.id for job in jobs]


async def test_a_list_with_a_fault_adds_nothing(queue: Queue, client: Client) -> None:
    """All members are checked before the first is sent; the error says which."""
    with pytest.raises(SerializationError, match="job 2 of the list"):
        await queue.add_bulk([("a", 1), ("b", 2), ("c", float("nan"))])
    with pytest.raises(ConfigurationError, match=r"job 1 of the list.*attempts"):
        await queue.add_bulk([("a", 1), ("b", 2, {"attempts": -1})])

    assert await keys(client, queue) == set()
    assert await queue.add_bulk([]) == []


async def test_adds_that_are_awaited_together_share_calls(queue: Queue, client: Client) -> None:
    """500 concurrent adds cost a handful of calls; each gets its own answer."""
    await known(queue)
    before = await calls(client)

    jobs = await asyncio.gather(*(queue.add("n", n) for n in range(500)))

    assert await calls(client) - before <= 9
    assert [job.data for job in jobs] == list(range(500))
    stored = await queue.get_jobs("waiting", ascending=True)
    assert [(job.id, job.data) for job in stored[1:]] == [(job.id, job.data) for job in jobs]


async def test_one_add_is_one_call(queue: Queue, client: Client) -> None:
    """A batch of one is not held back, and nothing else is asked."""
    await known(queue)
    before = await calls(client)

    await queue.add("n")

    assert await calls(client) - before == 1


async def test_a_fault_in_one_add_does_not_concern_those_beside_it(queue: Queue) -> None:
    """It is refused before it joins a batch."""
    answers = await asyncio.gather(
        queue.add("a"), queue.add("b", float("inf")), queue.add("c"), return_exceptions=True
    )

    assert [type(answer) for answer in answers] == [Job, SerializationError, Job]


# Bad input

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"a": [1, float("nan")]}, r"data\.a\[1\].*NaN"),
        (float("-inf"), "Infinity"),
        ({"a": b"x"}, r"data\.a.*bytes"),
        ({1: "a"}, "key of type int"),
        ({"big": 2**53}, "2\\^53"),
        (CYCLE, "contains itself"),
        ({"a": {1, 2}}, "set"),
        ({"f": lambda: None}, "function"),
        (object(), "object"),
        ("\ud800", "data"),
    ],
)
async def test_data_that_is_no_json_is_refused(queue: Queue, client: Client, data: Any, says: str) -> None:
    """The error names the place; nothing is written."""
    with pytest.raises(SerializationError, match=f"queue 'tests': job 'paint': .*{says}"):
        await queue.add("paint", data)

    assert await keys(client, queue) == set()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attemps": 3}, "unknown job option 'attemps'; did you mean 'attempts'"),
        ({"removeOnComplete": True}, "did you mean 'remove_on_complete'"),
        ({"xyz": 1}, "unknown job option 'xyz'; there are"),
        ({"attempts": "3"}, "attempts must be an integer, got str"),
        ({"attempts": True}, "attempts must be an integer, got bool"),
        ({"attempts": -1}, "attempts must be between"),
        ({"priority": 2_097_152}, "priority must be between"),
        ({"priority": 1.5}, "priority must be an integer"),
        ({"delay": -1}, "delay must be between"),
        ({"delay": float("nan")}, "delay must be between"),
        ({"delay": "5"}, "delay must be a timedelta or a number of seconds"),
        ({"lifo": 1}, "lifo must be True or False"),
        ({"backoff": "fast"}, "backoff"),
        ({"backoff": Fixed(1, jitter=2)}, "jitter"),
        ({"backoff": Custom("fixed")}, "name of its own"),
        ({"remove_on_complete": "yes"}, "remove_on_complete must be"),
        ({"remove_on_fail": -1}, "remove_on_fail must be between 0"),
        ({"remove_on_fail": KeepJobs()}, "needs a count or an age"),
        ({"timestamp": 5}, "timestamp must be between"),
        ({"job_id": "7"}, "is an integer"),
        ({"job_id": "a:b"}, "holds ':'"),
        ({"job_id": 7}, "job_id must be text"),
        ({"attempts": None}, "attempts must be an integer, got NoneType"),
    ],
)
async def test_options_that_cannot_be_are_refused(
    queue: Queue, client: Client, options: Any, says: str
) -> None:
    """The error names queue and option, and what was meant; nothing is written."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        await queue.add("paint", {"a": 1}, **options)

    assert "queue 'tests'" in str(caught.value)
    assert await keys(client, queue) == set()


@pytest.mark.parametrize(
    "job_id", ["wait", "active", "meta", "events", "id", "pc", "marker", "limiter", "stalled", "repeat"]
)
async def test_an_id_cannot_be_the_name_of_one_of_the_queues_keys(
    queue: Queue, client: Client, job_id: str
) -> None:
    """Its record would stand where the queue keeps something else, and the queue would be broken."""
    with pytest.raises(ConfigurationError, match=f"job_id '{job_id}'"):
        await queue.add("paint", job_id=job_id)

    assert await keys(client, queue) == set()


@pytest.mark.parametrize("name", ["", 5, None])
async def test_a_job_needs_a_name(queue: Queue, client: Client, name: Any) -> None:
    """Text, and not empty."""
    with pytest.raises(ConfigurationError, match="name"):
        await queue.add(name)

    assert await keys(client, queue) == set()


async def test_data_beyond_its_limit_is_refused(queue: Queue, client: Client) -> None:
    """In bytes of the JSON; the error says what to do."""
    with pytest.raises(
        SerializationError, match=r"12 bytes, more than its size_limit=10; store it elsewhere"
    ):
        await queue.add("paint", "ééééé", size_limit=10)

    assert await keys(client, queue) == set()
    assert (await queue.add("paint", "éééé", size_limit=10)).data == "éééé"


@pytest.mark.parametrize("name", ["", "a:b", 5])
def test_a_queues_name_has_no_colon(name: Any) -> None:
    """It would be taken for a part of a key; the message says what to do."""
    with pytest.raises(ConfigurationError, match="queue name"):
        Queue(name)


def test_defaults_are_checked_at_once() -> None:
    """Not only when something is added."""
    misspelt: Any = {"attemps": 3}
    with pytest.raises(ConfigurationError, match="did you mean 'attempts'"):
        Queue("q", default_job_options=misspelt)
    with pytest.raises(ConfigurationError, match="job_id cannot be a default"):
        Queue("q", default_job_options={"job_id": "a"})


# Servers that cannot or will not


def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_server_that_is_not_there() -> None:
    """Said at once, with the address, and what to look at; the password is not in it."""
    async with Queue("q", connection=f"redis://me:secret@127.0.0.1:{unused_port()}") as queue:
        for verb in (queue.add("a"), queue.get_job("1"), queue.get_job_counts(), queue.pause()):
            with pytest.raises(ServerUnreachableError, match=r"127\.0\.0\.1.*TORIL_URL") as caught:
                await verb
            assert "secret" not in str(caught.value)


async def test_a_server_with_another_password(server: EmbeddedServer) -> None:
    """None and a wrong one: an error of its own, and no secret in it."""
    with like(server, requirepass="right") as own:
        port = own.port
        for url in (f"redis://127.0.0.1:{port}", f"redis://:wrong-secret@127.0.0.1:{port}"):
            async with Queue("q", connection=url) as queue:
                with pytest.raises(AuthenticationError, match="password") as caught:
                    await queue.add("a")
                assert "wrong-secret" not in str(caught.value)
        async with Queue("q", connection=f"redis://:right@127.0.0.1:{port}") as queue:
            await queue.add("a")


async def test_a_user_without_the_rights(server: EmbeddedServer) -> None:
    """The error says that it is the ACL."""
    with like(server) as own:
        async with Connection(own.url) as admin:
            await admin.execute("ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@read", "+time")
        async with Queue("q", connection=f"redis://reader:pass@127.0.0.1:{own.port}") as queue:
            assert await queue.get_job("1") is None
            with pytest.raises(AuthenticationError, match="ACL"):
                await queue.add("a")


async def fill(queue: Queue) -> None:
    for _ in range(100):
        await queue.add("n", "x" * 100_000)


async def test_a_full_server_refuses_and_changes_nothing(server: EmbeddedServer) -> None:
    """Out of memory is said as it is; afterwards the keys are as before."""
    with like(server, maxmemory="6mb", maxmemory_policy="noeviction") as own:
        async with Queue("q", connection=own.url) as queue:
            with pytest.raises(ServerRefusedError, match="memory"):
                await fill(queue)
            held = await queue.get_ids("waiting")
            assert len(await queue.get_jobs("waiting")) == len(held)
            with pytest.raises(ServerRefusedError, match="memory"):
                await asyncio.gather(*(queue.add("n", "x" * 100_000) for _ in range(10)))

            assert await queue.get_ids("waiting") == held
            assert not await queue.connection.client.exists(queue.keys.job(str(int(held[0]) + 1)))


async def test_a_url_of_another_kind() -> None:
    """The message has the kinds that there are, and not the password."""
    with pytest.raises(ConfigurationError, match="rediss://") as caught:
        Queue("q", connection="http://me:secret@localhost")
    assert "secret" not in str(caught.value)


# Looking


async def test_counts_are_per_state(queue: Queue) -> None:
    """All states, or those that were asked for."""
    await queue.add("a")
    await queue.add("b", priority=3)

    assert await queue.get_job_counts() == {
        "active": 0,
        "completed": 0,
        "delayed": 0,
        "failed": 0,
        "prioritized": 1,
        "waiting": 1,
        "waiting-children": 0,
    }
    assert await queue.get_job_counts("waiting", "failed") == {"waiting": 1, "failed": 0}


async def test_unknown_states_are_refused(queue: Queue) -> None:
    """The message has those that there are."""
    state: Any = "done"
    for verb in (queue.get_job_counts(state), queue.get_jobs(state), queue.get_ids(state)):
        with pytest.raises(ConfigurationError, match="unknown state 'done'; there are active"):
            await verb


@pytest.mark.parametrize("state", ["waiting", "delayed", "prioritized", "completed"])
async def test_pages_of_a_state(queue: Queue, client: Client, state: State) -> None:
    """Newest first, or in the order of running or ending; positions from 0, the end included."""
    options: dict[str, Any] = {"delayed": {"delay": 60}, "prioritized": {"priority": 1}}.get(state, {})
    jobs = [await queue.add("n", n, **options) for n in range(6)]
    if state == "completed":
        await client.zadd(queue.keys.key("completed"), {job.id: int(job.id) for job in jobs})
    ids = [job.id for job in jobs]

    assert await queue.get_ids(state, ascending=True) == ids
    assert await queue.get_ids(state) == ids[::-1]
    assert await queue.get_ids(state, 1, 2, ascending=True) == ids[1:3]
    assert await queue.get_ids(state, 1, 2) == ids[::-1][1:3]
    assert await queue.get_ids(state, 4, 100) == ids[::-1][4:]
    assert await queue.get_ids(state, 10, 20) == []
    assert [job.data for job in await queue.get_jobs(state, 0, 1, ascending=True)] == [0, 1]


async def test_jobs_of_several_states(queue: Queue) -> None:
    """One state after another, none twice; what has no record is left out."""
    a, b = await queue.add("a"), await queue.add("b", priority=1)
    await queue.add("gone", priority=2)
    await queue.connection.client.delete(queue.keys.job("3"))

    assert [job.id for job in await queue.get_jobs(["prioritized", "waiting"])] == [b.id, a.id]
    assert [job.id for job in await queue.get_jobs()] == [b.id, a.id]
    assert [job.id for job in await queue.get_waiting()] == [a.id]
    assert [job.id for job in await queue.get_prioritized()] == [b.id]
    for verb in (queue.get_delayed, queue.get_active, queue.get_completed, queue.get_failed):
        assert await verb() == []


async def test_a_job_that_is_not_there(queue: Queue) -> None:
    """None, `unknown`, or an error that names id and queue."""
    assert await queue.get_job("no-such") is None
    assert await queue.get_job_state("no-such") == "unknown"
    with pytest.raises(JobNotFoundError, match=r"'no-such'.*:tests"):
        await queue.get_job_or_raise("no-such")


async def test_logs_come_in_pages(queue: Queue) -> None:
    """Oldest first or newest first, with the number of all."""
    job = await queue.add("a")
    for n in range(5):
        assert await job.log(f"row {n}") == n + 1

    assert (await queue.get_job_logs(job.id)).logs == [f"row {n}" for n in range(5)]
    page = await queue.get_job_logs(job.id, 0, 1, ascending=False)
    assert (page.logs, page.count) == (["row 4", "row 3"], 5)
    assert (await queue.get_job_logs(job.id, 3, 9)).logs == ["row 3", "row 4"]
    assert (await queue.get_job_logs("no-such")).count == 0


async def test_queues_are_found_by_their_settings(server_url: str, prefix: str, client: Client) -> None:
    """Sorted names under a prefix, which may hold what patterns hold; nothing of other prefixes."""
    odd = f"{prefix}:[a*]?"
    for name, where in (("beta", odd), ("alpha", odd), ("other", prefix), ("deep", f"{odd}:more")):
        async with Queue(name, connection=server_url, prefix=where) as queue:
            await queue.add("a", job_id="x")
    await client.set(f"{odd}:fake:meta", "no hash")

    assert await find_queues(server_url, odd) == ["alpha", "beta"]
    assert await find_queues(server_url, prefix) == ["other"]
    async with Connection(server_url) as connection:
        assert await find_queues(connection, f"{prefix}:no-such") == []


# Pausing, resuming, moving


async def test_a_list_of_an_old_version_is_resumed(queue: Queue, client: Client) -> None:
    """What 5.x had put into `paused` waits again, first in line, however long the list."""
    await queue.add("new")
    await client.rpush(queue.keys.key("paused"), *(f"old-{n}" for n in range(7_100)))

    await queue.resume()

    ids = await queue.get_ids("waiting", ascending=True)
    assert (len(ids), ids[0], ids[-1]) == (7_101, "old-7099", "1")
    assert not await client.exists(queue.keys.key("paused"))


async def test_promoting_twice_moves_the_job_once(queue: Queue) -> None:
    """Of two promotions of one job, the second is refused and changes nothing."""
    job = await queue.add("audit", {}, delay=timedelta(hours=1))

    await job.promote()
    with pytest.raises(JobNotInStateError, match=f"'{job.id}'"):
        await job.promote()

    assert await queue.get_ids("waiting") == [job.id]
    assert job.delay == 0


# Opening and closing


async def test_a_queue_costs_nothing_until_it_is_used() -> None:
    """Making and closing one opens no connection."""
    async with Queue("q", connection=f"redis://127.0.0.1:{unused_port()}") as queue:
        assert repr(queue).startswith("<Queue 'bull:q' at redis://127.0.0.1:")
    await queue.close()


async def test_closing_waits_for_adds_that_are_on_their_way(server_url: str, prefix: str) -> None:
    """Nobody's add is cut off."""
    queue = Queue("q", connection=server_url, prefix=prefix)
    await queue.add("first")
    adds = [asyncio.ensure_future(queue.add("n", n)) for n in range(50)]
    await asyncio.sleep(0)

    await queue.close()

    assert len({job.id for job in await asyncio.gather(*adds)}) == 50


async def test_a_shared_connection_is_left_open(server_url: str, prefix: str) -> None:
    """Whoever opens a thing closes it."""
    async with Connection(server_url) as connection:
        async with Queue("q", connection=connection, prefix=prefix) as queue:
            await queue.add("a")
        async with Queue("q", connection=connection, prefix=prefix) as again:
            assert await again.get_job_counts("waiting") == {"waiting": 1}


def test_a_queue_serves_one_event_loop_after_another(server_url: str, prefix: str) -> None:
    """The same object in several `asyncio.run`, as in scripts and tests."""
    queue = Queue("q", connection=server_url, prefix=prefix)

    async def add() -> str:
        job = await queue.add("a")
        await queue.close()
        return job.id

    assert [asyncio.run(add()) for _ in range(3)] == ["1", "2", "3"]


def test_a_queue_takes_the_url_of_the_environment(
    server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TORIL_URL, where nothing is given."""
    monkeypatch.setenv("TORIL_URL", server_url)
    queue = Queue("q", prefix=prefix)

    assert queue.connection.safe_url == server_url
    monkeypatch.delenv("TORIL_URL")
    assert Queue("q").connection.safe_url == "redis://localhost:6379"


@pytest.mark.parametrize("url", ["ada:s3cret@db:6379", "db:6379", "//ada:s3cret@db", "?"])
def test_what_is_no_url_is_not_shown(url: str) -> None:
    """It may hold a password in a place where nobody looks for one."""
    with pytest.raises(ConfigurationError, match="redis://") as refused:
        Queue("q", connection=url)
    assert "s3cret" not in str(refused.value)


REPRS: list[Callable[[Queue], object]] = [repr, lambda queue: repr(queue.connection)]


@pytest.mark.parametrize("show", REPRS)
def test_a_password_is_never_shown(show: Callable[[Queue], object]) -> None:
    """Neither user nor password, nor what else a URL may carry."""
    queue = Queue("q", connection="redis://alice:secret@host:1/0?password=secret")

    shown = str(show(queue))
    assert "host:1" in shown
    assert "secret" not in shown
    assert "alice" not in shown
