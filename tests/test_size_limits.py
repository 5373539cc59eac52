"""How large things may be: at the limit they are stored whole, beyond it nothing is, and the error says what to do."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from tests.patience import ended
from toril import (
    ConfigurationError,
    FlowJob,
    FlowProducer,
    JobFailedError,
    Limits,
    Queue,
    SerializationError,
    TooLargeError,
    Worker,
)
from toril.codec import MAX_DEPTH, check_depth, loads
from toril.limits import check_size

Client: TypeAlias = Any
SMALL = Limits(data=1000, stored_data=2000, return_value=1000, progress=50, log_row=20, options=200, jobs=5)


async def keys(client: Client, prefix: str) -> set[str]:
    return {key async for key in client.scan_iter(match=f"{prefix}:*")}


@pytest.fixture
def small(server_url: str, prefix: str) -> Queue:
    return Queue("small", connection=server_url, prefix=prefix, limits=SMALL)


@pytest.mark.parametrize(
    ("data", "fits"),
    [("x" * 998, True), ("x" * 999, False), ("é" * 499, True), ("é" * 500, False), ("\x00" * 167, False)],
)
async def test_data_is_counted_as_it_is_stored(small: Queue, client: Client, data: str, fits: bool) -> None:
    """In bytes of its JSON, quotes and escapes included."""
    async with small:
        if fits:
            assert (await small.add("a", data)).data == data
        else:
            with pytest.raises(
                TooLargeError, match=r"bytes, more than Limits\.data=1,000; store it elsewhere"
            ):
                await small.add("a", data)
            assert await keys(client, small.prefix) == set()


async def test_the_default_is_a_mebibyte(server_url: str, prefix: str) -> None:
    """One byte more is refused, unless the job says otherwise."""
    async with Queue("q", connection=server_url, prefix=prefix) as queue:
        most = 1024 * 1024 - 2
        await queue.add("a", "x" * most)
        with pytest.raises(TooLargeError):
            await queue.add("a", "x" * (most + 1))
        await queue.add("a", "x" * (most + 1), size_limit=2_000_000)


async def test_lists_are_counted(small: Queue, client: Client) -> None:
    """One job too many, and none is added; the same for the jobs of a flow."""
    async with small:
        with pytest.raises(TooLargeError, match=r"the list has 6 jobs, more than Limits\.jobs=5"):
            await small.add_bulk([("a", 1)] * 6)
        children = [FlowJob("child", "small")] * 5
        producer = FlowProducer(connection=small.connection, prefix=small.prefix, limits=SMALL)
        with pytest.raises(TooLargeError, match="the flow of job 'root' has 6 jobs"):
            await producer.add(FlowJob("root", "small", children=children))
        assert await keys(client, small.prefix) == set()


async def test_names_and_options_are_bounded(small: Queue, client: Client) -> None:
    """256 bytes, as ids and queue names; options by their stored size."""
    async with small:
        for name in ("x" * 257, "é" * 129, "\ud800"):
            with pytest.raises(ConfigurationError, match="name"):
                await small.add(name)
        with pytest.raises(TooLargeError, match=r"Limits\.options=200"):
            await small.add("a", None, job_id="x" * 250)
        assert await keys(client, small.prefix) == set()
        await small.add("é" * 128)


async def test_what_a_processor_leaves_behind_is_bounded(small: Queue) -> None:
    """Progress and data are refused to it, a log row is cut, and a return value beyond the limit fails the attempt."""
    errors: list[Exception] = []

    async def process(job: Any) -> str:
        for update in (job.update_progress, job.update_data):
            try:
                await update("x" * 1000)
            except TooLargeError as error:
                errors.append(error)
        await job.log("é" * 50)
        return "x" * int(job.data)

    async with small, Worker(small, process):
        fits, fails = await small.add("a", 998), await small.add("a", 999)
        (value, error) = await ended(fits, fails)
        assert value == "x" * 998
        assert isinstance(error, JobFailedError)
        assert "return value has 1,001 bytes, more than Limits.return_value=1,000" in error.failed_reason
        assert len(errors) == 4
        assert (await small.get_job_logs(fits.id)).logs == ["é" * 10 + "…"]


async def test_a_worker_fails_what_others_stored_too_large(small: Queue, client: Client) -> None:
    """The job fails at once and unread, and says which limit it met."""
    big = Queue("small", connection=small.connection, prefix=small.prefix)
    job = await big.add("a", "x" * 3000, attempts=5)
    async with small, Worker(small, lambda job: job.data):
        (error,) = await ended(job)
        assert isinstance(error, JobFailedError)
        assert "data has 3,002 bytes, more than Limits.stored_data=2,000" in error.failed_reason


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "1"])
def test_limits_are_whole_and_positive(bad: Any) -> None:
    """There is no way to have none by mistake."""
    with pytest.raises(ConfigurationError, match="Limits: data must be a whole number"):
        Limits(data=bad)


@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"]":', "}]"), ('{"\\"[":[', "]}")]
)
def test_a_text_is_64_levels_deep_at_most(opening: str, closing: str) -> None:
    """Brackets within strings are no levels, and neither are many beside each other."""
    levels = opening.count("[") + opening.count("{") - opening.count('"\\"[')
    within = MAX_DEPTH // levels
    assert loads(f"[{opening * 0}1{closing * 0}]") == [1]
    check_depth(opening * within + "1" + closing * within)
    check_depth("[" + ",".join([opening * (within - 1) + "1" + closing * (within - 1)] * 50) + "]")
    with pytest.raises(SerializationError, match="nested deeper than 64 levels"):
        loads(opening * (within + 1) + "1" + closing * (within + 1))
    with pytest.raises(SerializationError, match="nested deeper than 64 levels"):
        loads(opening * 10_000 + "1" + closing * 10_000)


@pytest.mark.parametrize(
    "text", ["[" * 300, "]" * 150 + "[" * 150, '"' + "[" * 300 + '"', '["\\' + '"[' * 100]
)
def test_counting_levels_leaves_the_rest_to_the_parser(text: str) -> None:
    """What is no JSON is told so, and text about brackets is text."""
    check_depth(text)


def test_sizes_are_of_utf8() -> None:
    """Also of text that UTF-8 cannot hold."""
    check_size("\ud800" * 10, 30, "it", "most")
    with pytest.raises(TooLargeError, match="it has 33 bytes, more than most=30"):
        check_size("\ud800" * 11, 30, "it", "most")
