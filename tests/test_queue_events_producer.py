"""Events of one's own in a queue's stream."""

from __future__ import annotations

from typing import Any

import pytest

from tests.patience import within
from toril import ConfigurationError, Connection, Event, Queue, QueueEvents, QueueEventsProducer


async def test_events_of_ones_own_are_heard(queue: Queue, server_url: str) -> None:
    """Beside those of transitions, in order, with their fields as text."""
    async with (
        QueueEvents("tests", connection=server_url, prefix=queue.prefix) as events,
        QueueEventsProducer("tests", connection=server_url, prefix=queue.prefix) as producer,
    ):
        place = await producer.publish_event(
            "inventory", {"jobId": "7", "left": 3, "share": 0.5, "low": True}
        )
        await queue.add("a")
        await producer.publish_event("bare")
        heard: list[Event] = []
        async with within("four events"):
            while len(heard) < 4:
                heard += await events.read()
    assert [event.name for event in heard] == ["inventory", "added", "waiting", "bare"]
    assert heard[0].id == place
    assert heard[0].job_id == "7"
    assert heard[0].fields == {"jobId": "7", "left": "3", "share": "0.5", "low": "true"}


async def test_the_stream_stays_bounded(queue: Queue, server_url: str) -> None:
    """About `max_events` are kept."""
    async with QueueEventsProducer("tests", connection=server_url, prefix=queue.prefix) as producer:
        for number in range(400):
            await producer.publish_event("tick", {"n": number}, max_events=100)
    length = await queue.connection.execute("XLEN", queue.keys.key("events"))
    assert 100 <= length < 300


async def test_a_producer_closes_what_it_opened(queue: Queue, server_url: str) -> None:
    """A connection that it was given stays open; its own can be closed twice."""
    async with Connection(server_url) as connection:
        shared = QueueEventsProducer("tests", connection=connection, prefix=queue.prefix)
        await shared.publish_event("mine")
        await shared.close()
        assert await connection.execute("PING") == "PONG"
    own = QueueEventsProducer("tests", connection=server_url, prefix=queue.prefix)
    await own.publish_event("mine")
    await own.close()
    await own.close()


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("", {}),
        ("completed", {"jobId": "1", "returnvalue": "1"}),
        ("waiting-children", {}),
        ("mine", {"event": "failed"}),
        ("mine", {"nested": {"a": 1}}),
        ("mine", {"nothing": None}),
    ],
)
async def test_what_would_mislead_listeners_is_refused(
    queue: Queue, server_url: str, event: str, fields: Any
) -> None:
    """Names of transitions, a second name, and values that are no text; nothing is published."""
    async with QueueEventsProducer("tests", connection=server_url, prefix=queue.prefix) as producer:
        with pytest.raises(ConfigurationError, match=f"event '{event}'"):
            await producer.publish_event(event, fields)
        with pytest.raises(ConfigurationError, match="max_events"):
            await producer.publish_event("mine", max_events=0)
    assert await queue.connection.execute("EXISTS", queue.keys.key("events")) == 0


async def test_how_long_a_reading_waits(queue: Queue, server_url: str) -> None:
    """An empty stream answers after the blocking timeout; none at all is refused."""
    async with (
        QueueEvents("tests", connection=server_url, prefix=queue.prefix, blocking_timeout=0.05) as events,
        within("the end of the reading", 3),
    ):
        assert await events.read() == []
    with pytest.raises(ConfigurationError, match="blocking_timeout"):
        QueueEvents("tests", connection=server_url, blocking_timeout=0)
