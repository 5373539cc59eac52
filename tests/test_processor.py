"""A decorated function and its jobs: what is added is what runs, and what is returned comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pydantic
import pytest

from toril import (
    ConfigurationError,
    Job,
    JobFailedError,
    Queue,
    SerializationError,
    SyncJob,
    Worker,
)

SOON = 15


class Application(pydantic.BaseModel):
    application_id: int
    sent_at: datetime | None = None


class Receipt(pydantic.BaseModel):
    number: int
    at: datetime


class Point(msgspec.Struct):
    x: int


@dataclass
class Figure:
    corners: list[Point]


async def test_arguments_arrive_and_the_result_comes_back(queue: Queue) -> None:
    """`add` takes what the function takes, the worker calls it with that, and `result` has what it returned."""

    @queue.processor()
    async def greet(name: str, times: int = 1, *, loud: bool = False) -> str:
        text = f"hello {name} " * times
        return text.upper() if loud else text

    async with Worker(queue):
        job = await greet.add("Ada", loud=True)
        assert job.name == "greet"
        assert job.data == {"name": "Ada", "times": 1, "loud": True}
        assert await job.result(SOON) == "HELLO ADA "


async def test_models_go_in_and_come_out(queue: Queue) -> None:
    """Models are the data, and return values get the annotated type back, also inside of containers."""

    @queue.processor()
    async def book(application: Application) -> Receipt:
        assert isinstance(application, Application)
        return Receipt(number=application.application_id, at=datetime(2026, 1, 1, tzinfo=UTC))

    @queue.processor()
    async def draw(points: list[Point]) -> Figure:
        return Figure(points)

    @queue.processor()
    async def list_receipts(count: int) -> dict[str, list[Receipt]]:
        return {"all": [Receipt(number=n, at=datetime(2026, 1, 1, tzinfo=UTC)) for n in range(count)]}

    @queue.processor()
    async def when(days: int) -> timedelta | None:
        return timedelta(days=days) if days else None

    async with Worker(queue, concurrency=4):
        job = await book.add(Application(application_id=7))
        assert job.data == {"application_id": 7, "sent_at": None}
        assert await job.result(SOON) == Receipt(number=7, at=datetime(2026, 1, 1, tzinfo=UTC))
        assert await (await draw.add([Point(1)])).result(SOON) == Figure([Point(1)])
        assert (await (await list_receipts.add(2)).result(SOON))["all"][1].number == 1
        assert await (await when.add(2)).result(SOON) == timedelta(days=2)
        assert await (await when.add(0)).result(SOON) is None

    await job.refresh()
    assert job.return_value == Receipt(number=7, at=datetime(2026, 1, 1, tzinfo=UTC))


async def test_data_from_elsewhere_is_checked_before_the_run(queue: Queue) -> None:
    """What does not fit the signature fails once and for all, with its path, and the function is not called."""
    calls: list[int] = []

    @queue.processor(attempts=5)
    async def count(number: int) -> int:
        calls.append(number)
        return number

    @queue.processor("book", attempts=5)
    async def book(application: Application) -> None: ...

    bad: list[tuple[str, Any, str]] = [
        ("count", {"number": "1"}, "processor 'count' of queue 'tests': `number`: expected int, got str"),
        ("count", {}, "processor 'count' of queue 'tests': `number`: missing"),
        ("count", [1], "processor 'count' of queue 'tests': data: expected object, got array"),
        ("count", None, "processor 'count' of queue 'tests': `number`: missing"),
        ("book", {"application_id": "hunter2"}, "processor 'book' of queue 'tests': `application_id`: "),
    ]
    async with Worker(queue, concurrency=4):
        for name, data, message in bad:
            job = await queue.add(name, data, attempts=5)
            with pytest.raises(JobFailedError) as caught:
                await job.result(SOON)
            assert message in caught.value.failed_reason
            assert "hunter2" not in caught.value.failed_reason
            await job.refresh()
            assert job.attempts_made == 1
        good = await queue.add("count", {"number": 1, "from": "Node"})
        assert await good.result(SOON) == 1
    assert calls == [1]


async def test_wrong_arguments_add_nothing(queue: Queue) -> None:
    """The check comes before the server hears of it."""

    @queue.processor()
    async def count(number: int) -> int:
        return number

    wrong: Any = count
    with pytest.raises(
        SerializationError, match="processor 'count' of queue 'tests': `number`: expected int, got str"
    ):
        await wrong.add("1")
    with pytest.raises(TypeError, match="missing a required argument: 'number'"):
        await wrong.add()
    with pytest.raises(SerializationError):
        await asyncio.to_thread(wrong.sync.add, "1")
    assert await queue.get_ids("waiting") == []


async def test_the_job_is_handed_in_by_its_annotation(queue: Queue) -> None:
    """As a `Job` to an `async def`, as a `SyncJob` to a `def` in a thread; neither is data."""

    @queue.processor()
    async def on_the_loop(job: Job, number: int) -> str:
        await job.update_progress({"at": number})
        await job.log("hello")
        return job.id

    @queue.processor()
    def in_a_thread(job: SyncJob, number: int) -> str:
        assert threading.current_thread() is not threading.main_thread()
        job.update_progress(number)
        job.log("hello")
        return job.id

    async with Worker(queue, concurrency=2):
        for job in (await on_the_loop.add(number=3), await in_a_thread.add(number=3)):
            assert job.data == {"number": 3}
            assert await job.result(SOON) == job.id
            await job.refresh()
            assert job.progress in ({"at": 3}, 3)
            assert (await queue.get_job_logs(job.id)).logs == ["hello"]


async def test_options_are_laid_over_each_other(queue: Queue) -> None:
    """The queue's defaults, the processor's options, then those of one `add`."""
    emails = Queue(
        "emails",
        connection=queue.connection,
        prefix=queue.prefix,
        default_job_options={"attempts": 2, "keep_logs": 5},
    )

    @emails.processor(attempts=3, priority=7)
    async def send(to: str) -> None: ...

    job = await send.options(priority=1, delay=60).options(delay=30).add("a")
    assert job.options.raw == {"attempts": 3, "kl": 5, "priority": 1, "delay": 30_000}
    plain = await send.add("a")
    assert plain.options.raw == {"attempts": 3, "kl": 5, "priority": 7}
    assert (await send.options(job_id="once").add("a")).id == "once"
    assert (await send.options(job_id="once").add("b")).id == "once"
    assert await emails.get_ids("delayed") == [job.id]


async def test_an_attempt_that_takes_too_long_fails(queue: Queue) -> None:
    """The function is cancelled where it waits, and the reason says after how long."""
    cancelled = asyncio.Event()

    @queue.processor(timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @queue.processor(timeout=60)
    async def own_timeout() -> None:
        raise TimeoutError("the pharmacy did not answer")

    async with Worker(queue, concurrency=2):
        with pytest.raises(JobFailedError, match=r"timed out after 0\.05 s"):
            await (await slow.add()).result(SOON)
        with pytest.raises(JobFailedError, match="the pharmacy did not answer"):
            await (await own_timeout.add()).result(SOON)
    assert cancelled.is_set()


async def test_who_catches_the_cancellation_of_a_timeout_is_warned_of(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """The job completes, since it has done its work; the log names it and its queue once, and nothing that it holds."""

    @queue.processor(timeout=0.05)
    async def stubborn(secret: str) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return secret

    job = await stubborn.add("hunter2")
    with caplog.at_level(logging.WARNING, "toril.worker"):
        async with Worker(queue):
            assert await job.result(SOON) == "hunter2"
    (said,) = caplog.messages
    assert said.startswith(
        f"job {job.id} (stubborn) in {queue.name!r}: its processor caught its cancellation after"
    )
    assert "hunter2" not in said


async def test_what_the_annotation_names_can_be_returned(queue: Queue) -> None:
    """Sets, bytes and keys that are numbers are read as what they were; where nothing names them, they are refused."""

    @queue.processor()
    async def tags() -> set[str]:
        return {"a", "b"}

    @queue.processor()
    async def names() -> dict[int, bytes]:
        return {5: b"five"}

    @queue.processor()
    async def plain() -> Any:
        return {"a"}

    @queue.processor()
    async def large() -> set[int]:
        return {2**53}

    async with Worker(queue):
        assert await (await tags.add()).result(SOON) == {"a", "b"}
        assert await (await names.add()).result(SOON) == {5: b"five"}
        with pytest.raises(JobFailedError, match="return value: a set is not JSON; pass a list"):
            await (await plain.add()).result(SOON)
        with pytest.raises(JobFailedError, match="return value: a set is not JSON; pass a list"):
            await (await large.add()).result(SOON)


async def test_calling_a_processor_runs_the_function_here(queue: Queue) -> None:
    """No job is made; the decorated function keeps its name and docstring."""

    @queue.processor("say-hello")
    async def greet(name: str) -> str:
        """Greet somebody."""
        return f"hello {name}"

    assert await greet("Ada") == "hello Ada"
    assert greet.__doc__ == "Greet somebody."
    assert greet.name == "say-hello"
    assert await queue.get_ids("waiting") == []


async def test_one_function_serves_two_queues(queue: Queue, server_url: str) -> None:
    """Each of the two processors adds to the queue that it was made for, under the name that it has there."""
    async with Queue("others", connection=server_url, prefix=queue.prefix) as others:

        async def double(n: int) -> int:
            return 2 * n

        there = others.processor("twice", attempts=2)(double)
        here = queue.processor()(there)
        assert [(one.queue, one.name) for one in (here, there)] == [(queue, "double"), (others, "twice")]
        async with Worker(queue):
            assert await (await here.add(n=21)).result() == 42
        assert (await there.add(n=1)).options.attempts == 2
        assert await others.get_job_counts("waiting") == {"waiting": 1}


def test_mistakes_are_found_when_decorating() -> None:
    """Names that are taken or missing, options that cannot be, parameters that JSON cannot fill."""
    queue = Queue("tests")

    @queue.processor()
    async def send_mail(to: str) -> None: ...

    assert send_mail.name == "send-mail"
    with pytest.raises(ConfigurationError, match="has a processor 'send-mail' already"):
        queue.processor()(send_mail.function)
    with pytest.raises(ConfigurationError, match="a processor without a name"):
        queue.processor()(lambda: None)
    with pytest.raises(ConfigurationError, match="job_id names one job"):
        queue.processor("a", job_id="x")(lambda: None)
    with pytest.raises(ConfigurationError, match="timeout= needs an `async def`"):
        queue.processor("a", timeout=3)(lambda: None)
    with pytest.raises(ConfigurationError, match="attempts must be"):
        queue.processor("a", attempts=-1)(lambda: None)
    with pytest.raises(ConfigurationError, match="timeout"):
        queue.processor("a", timeout=-1)(send_mail.function)
    with pytest.raises(ConfigurationError, match=r"processor 'a' of queue 'tests': `\*values` has no"):
        queue.processor("a")(lambda *values: None)  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(ConfigurationError, match=r"write @queue.processor\(\), with parentheses"):
        queue.processor(lambda: None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert set(queue.processors) == {"send-mail"}


async def test_a_return_value_of_another_type_is_named(queue: Queue) -> None:
    """A result that another worker wrote, and that does not fit the annotation, is no silent surprise."""

    @queue.processor()
    async def count() -> Point:
        return "not a point"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    async with Worker(queue):
        job = await count.add()
        with pytest.raises(SerializationError, match="return value: expected object, got str"):
            await job.result(SOON)


async def test_the_stored_text_is_plain_json(queue: Queue) -> None:
    """A Node worker reads it with JSON.parse and finds the argument names."""

    @queue.processor()
    async def book(application: Application, note: str = "") -> None: ...

    job = await book.add(Application(application_id=1))
    assert json.loads(job.data_json) == {"application": {"application_id": 1, "sent_at": None}, "note": ""}
