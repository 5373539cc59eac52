"""Events of a queue, as they are heard from any process."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import pytest

from tests.patience import like, until, within
from tests.test_queue import unused_port
from toril import (
    AuthenticationError,
    Connection,
    Event,
    Queue,
    QueueEvents,
    SerializationError,
    ServerUnreachableError,
)
from toril.embedded import EmbeddedServer
from toril.queue_events import EndListener

Client: TypeAlias = Any


async def take(events: QueueEvents, count: int) -> list[Event]:
    heard: list[Event] = []
    async with within(f"{count} events"):
        async for event in events:
            heard.append(event)
            if len(heard) == count:
                break
    return heard


async def test_events_are_heard_from_the_moment_of_listening(queue: Queue, server_url: str) -> None:
    """What was before is not; what happens between entering and the first read is."""
    await queue.add("before")
    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix) as events:
        await queue.add("a", delay=60)
        await queue.add("b")

        heard = await take(events, 4)
    assert [(event.name, event.job_id) for event in heard] == [
        ("added", "2"),
        ("delayed", "2"),
        ("added", "3"),
        ("waiting", "3"),
    ]
    assert heard[0].fields == {"jobId": "2", "name": "a"}
    assert [event.id for event in heard] == sorted(event.id for event in heard)


async def test_whoever_leaves_the_loop_goes_on_where_it_was(queue: Queue, server_url: str) -> None:
    """What was read along with the last event is not lost."""
    await queue.add("a")
    await queue.add("b")
    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix, last_event_id="0") as events:
        heard = [(await take(events, 1))[0] for _ in range(4)]
    assert [(event.name, event.job_id) for event in heard] == [
        ("added", "1"),
        ("waiting", "1"),
        ("added", "2"),
        ("waiting", "2"),
    ]


async def test_no_outage_is_too_long_for_events(
    queue: Queue, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour is a thousand tries, and the wait between them has an end."""
    sleep, read, left = asyncio.sleep, QueueEvents.read, 1100

    async def away(self: QueueEvents, block_ms: int | None = None) -> list[Event]:
        nonlocal left
        left -= 1
        if left > 0:
            raise ServerUnreachableError("away")
        return await read(self, block_ms)

    await queue.add("a")
    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix, last_event_id="0") as events:
        monkeypatch.setattr(QueueEvents, "read", away)
        with monkeypatch.context() as hurried:
            hurried.setattr(asyncio, "sleep", lambda _: sleep(0))
            assert [event.name for event in await take(events, 1)] == ["added"]


async def test_events_that_were_closed_can_be_entered_again(queue: Queue, server_url: str) -> None:
    """They go on where they were."""
    events = QueueEvents("tests", connection=server_url, prefix=queue.prefix)
    async with events:
        pass
    await queue.add("a")
    async with events:
        assert [event.name for event in await take(events, 2)] == ["added", "waiting"]


async def test_closing_a_listener_can_be_cancelled(queue: Queue) -> None:
    """Who is told to stop while the reader ends is not kept from it."""
    job = await queue.add("a")
    listener = EndListener(queue)
    waiting = asyncio.create_task(listener.wait(job.id))
    await until("the reader", lambda: listener._reader is not None)
    closing = asyncio.create_task(listener.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    waiting.cancel()
    await asyncio.wait((waiting,))


async def test_the_past_can_be_heard_too(queue: Queue, server_url: str) -> None:
    """From the oldest that is kept, or after a place that is known."""
    await queue.add("a")
    await queue.add("b")
    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix, last_event_id="0") as events:
        heard = await take(events, 4)
    async with QueueEvents(
        "tests", connection=server_url, prefix=queue.prefix, last_event_id=heard[1].id
    ) as events:
        assert await take(events, 2) == heard[2:]


async def test_nothing_is_lost_in_a_burst(queue: Queue, server_url: str) -> None:
    """Thousands of events, more than one read takes, in order."""
    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix) as events:
        await queue.add_bulk(("n", n) for n in range(1_500))

        heard = await take(events, 3_000)
    assert [event.job_id for event in heard if event.name == "added"] == [str(n) for n in range(1, 1_501)]


async def test_values_are_read_from_json(queue: Queue, client: Client, server_url: str) -> None:
    """Progress and return values; what is none is named when it is read, and stops nobody."""
    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix) as events:
        key = queue.keys.key("events")
        await client.xadd(
            key, {"event": "completed", "jobId": "1", "returnvalue": '{"a":1}', "prev": "active"}
        )
        await client.xadd(key, {"event": "progress", "jobId": "1", "data": "no json"})
        await client.xadd(key, {"event": "failed", "jobId": "1", "failedReason": "boom"})
        await client.xadd(key, {"event": "my-own", "x": "1"})

        completed, progress, failed, own = await take(events, 4)
    assert (completed.value, completed.prev) == ({"a": 1}, "active")
    with pytest.raises(SerializationError, match=progress.id):
        _ = progress.value
    assert (failed.failed_reason, failed.value) == ("boom", None)
    assert (own.name, own.job_id, own.fields) == ("my-own", None, {"x": "1"})


async def test_listening_goes_on_where_it_was(queue: Queue, client: Client, server_url: str) -> None:
    """A connection that is cut costs no event, and none comes twice."""
    async with QueueEvents("tests", connection=server_url, prefix=queue.prefix) as events:
        await queue.add("a", job_id="a")
        assert len(await take(events, 2)) == 2
        reading = asyncio.create_task(take(events, 4))
        await asyncio.sleep(0.05)
        await kill_listeners(client)
        await queue.add("b", job_id="b")
        await kill_listeners(client)
        await queue.add("c", job_id="c")

        assert [event.job_id for event in await reading] == ["b", "b", "c", "c"]


async def kill_listeners(client: Client) -> None:
    for entry in await client.client_list():
        if entry["name"].endswith(":qe"):
            await client.client_kill_filter(_id=entry["id"])


async def test_closing_ends_the_loop(queue: Queue, server_url: str) -> None:
    """Also one that waits for an event just now."""
    events = QueueEvents("tests", connection=server_url, prefix=queue.prefix)
    await events.open()

    async def loop() -> int:
        return len([event async for event in events])

    reading = asyncio.create_task(loop())
    await asyncio.sleep(0.05)
    await events.close()
    async with within("the end of the loop", 5):
        assert await reading == 0


async def test_a_server_that_is_not_there() -> None:
    """Entering says so."""
    events = QueueEvents("q", connection=f"redis://127.0.0.1:{unused_port()}")
    with pytest.raises(ServerUnreachableError):
        await events.open()


async def test_a_server_with_another_password(server: EmbeddedServer) -> None:
    """No patience for what waiting does not mend."""
    with like(server, requirepass="right") as own:
        events = QueueEvents("q", connection=f"redis://127.0.0.1:{own.port}")
        with pytest.raises(AuthenticationError, match="password"):
            await events.open()


async def test_a_shared_connection_is_left_open(queue: Queue, server_url: str) -> None:
    """Whoever opens a thing closes it."""
    async with Connection(server_url) as connection:
        async with QueueEvents("tests", connection=connection, prefix=queue.prefix):
            pass
        assert await connection.execute("PING") == "PONG"


async def test_a_read_waits_as_long_as_it_is_told(queue: Queue) -> None:
    """`read(block_ms=...)` returns nothing after that time, and at once what there is."""
    async with QueueEvents(queue.name, connection=queue.connection, prefix=queue.prefix) as events:
        assert await events.read(block_ms=20) == []
        await queue.add("a")
        assert "added" in [event.name for event in await events.read(block_ms=10_000)]
