"""Jobs as their owners see them: results that are awaited, records that are read and written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import pytest

from tests.patience import Heard, ended, like, until, within
from tests.test_queue import unused_port
from toril import (
    AuthenticationError,
    ConfigurationError,
    Event,
    Job,
    JobFailedError,
    JobNotFoundError,
    JobNotInStateError,
    Limits,
    Queue,
    QueueEvents,
    SerializationError,
    ServerUnreachableError,
    Worker,
)
from toril.embedded import EmbeddedServer
from toril.queue_events import EndListener
from toril.states import State

Client: TypeAlias = Any


@pytest.fixture
async def working_queue(queue: Queue) -> AsyncIterator[Queue]:
    """A queue whose jobs return their data, or fail."""

    async def process(job: Job) -> Any:
        if job.name == "bad":
            raise ValueError("boom")
        return job.data

    async with Worker(queue, process, concurrency=20):
        yield queue


async def listeners(client: Client, queue: Queue) -> int:
    return sum(entry["name"].endswith(":qe") for entry in await client.client_list())


# Waiting for the result


async def test_a_result_comes_when_the_job_has_ended(working_queue: Queue) -> None:
    """Whatever JSON it is."""
    for value in (7, "text", [1, {"a": None}], None, True):
        job = await working_queue.add("good", {"value": value})
        assert await job.result(timeout=10) == {"value": value}


async def test_a_failure_is_raised(working_queue: Queue) -> None:
    """With the job and the reason."""
    job = await working_queue.add("bad")

    with pytest.raises(JobFailedError, match=f"job '{job.id}' failed: boom") as caught:
        await job.result(timeout=10)
    assert (caught.value.job_id, caught.value.failed_reason) == (job.id, "boom")


async def test_what_has_ended_already_is_told_at_once(working_queue: Queue) -> None:
    """Completed and failed alike, from any copy of the job."""
    good, bad = await working_queue.add("good", 5), await working_queue.add("bad")
    await ended(good, bad)

    copy = await working_queue.get_job(good.id)
    assert copy is not None
    assert await copy.result(timeout=10) == 5
    with pytest.raises(JobFailedError, match="boom"):
        await bad.result(timeout=10)


async def test_a_deadline_is_kept(queue: Queue) -> None:
    """The job goes on; it can be awaited again."""
    job = await queue.add("later")

    with pytest.raises(
        TimeoutError,
        match=f"job '{job.id}' in queue 'tests' has not ended after 0.1 s; .toril why tests {job.id} --prefix",
    ):
        await job.result(timeout=0.1)
    assert await job.get_state() == "waiting"
    async with Worker(queue, lambda job: "ran"):
        assert await job.result(timeout=10) == "ran"


async def test_a_job_that_is_gone_is_said_to_be(queue: Queue) -> None:
    """Nobody waits for what can never come; also where it goes while it is awaited."""
    job = await queue.add("gone")
    assert await job.remove()

    with pytest.raises(JobNotFoundError, match=f"'{job.id}'.*is gone"):
        await job.result(timeout=10)


async def test_a_result_of_a_job_that_is_removed_at_its_end(queue: Queue) -> None:
    """It is heard from the event, although the record is gone by then."""
    waiting = [await queue.add("a", n, remove_on_complete=True) for n in range(20)]
    results = asyncio.gather(*(job.result(timeout=10) for job in waiting))
    await until("the listener", lambda: queue._listeners)
    await asyncio.sleep(0.1)
    async with Worker(queue, lambda job: job.data, concurrency=5):
        assert await results == list(range(20))
    assert await queue.get_job_counts("completed") == {"completed": 0}


async def test_many_results_are_read_by_one_listener(working_queue: Queue, client: Client) -> None:
    """Several hundred awaited jobs cost one connection, which is closed with the last of them."""
    await working_queue.pause()
    jobs = await working_queue.add_bulk(("good", n) for n in range(300))
    results = asyncio.gather(*(job.result(timeout=20) for job in jobs))
    await until("a listener", lambda: listeners(client, working_queue))
    assert await listeners(client, working_queue) == 1
    await working_queue.resume()

    assert await results == list(range(300))
    await until("its end", lambda: nobody_listens(client, working_queue))


async def nobody_listens(client: Client, queue: Queue) -> bool:
    return await listeners(client, queue) == 0


async def test_several_wait_for_one_job(working_queue: Queue) -> None:
    """Each gets the result; one who gives up does not take it from the others."""
    await working_queue.pause()
    job = await working_queue.add("good", 5)
    waits = [asyncio.create_task(job.result(timeout=10)) for _ in range(3)]
    await asyncio.sleep(0.05)
    waits[0].cancel()
    await working_queue.resume()

    answers = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [5, 5]


async def test_results_of_a_server_that_is_not_there() -> None:
    """All who wait are told; none hangs because another has opened the listener."""
    async with Queue("q", connection=f"redis://127.0.0.1:{unused_port()}") as queue:
        waits = [Job(queue, f"job-{n}", {}).result(timeout=30) for n in range(3)]
        async with within("the errors"):
            answers = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ServerUnreachableError] * 3


async def test_a_result_is_heard_of_after_a_reader_has_failed(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while the others have not left yet, a slow server being asked, gets a reader of its own."""

    async def refused(events: QueueEvents, block_ms: int | None = None) -> list[Event]:
        raise AuthenticationError("not any more")

    async def slow(job_id: str) -> State:
        if job_id == first.id:
            await answered.wait()
        return await state(job_id)

    answered, state = asyncio.Event(), queue.get_job_state
    first, second = await queue.add("a"), await queue.add("a")
    monkeypatch.setattr(queue, "get_job_state", slow)
    listener = EndListener(queue)
    told = asyncio.create_task(listener.wait(first.id))
    await until("the reader", lambda: listener._reader is not None)
    reader = listener._reader
    assert reader is not None
    with monkeypatch.context() as failing:
        failing.setattr(QueueEvents, "read", refused)
        await queue.add("an event, which ends the read")
        await asyncio.wait({reader})
    waiting = asyncio.create_task(listener.wait(second.id))
    await until("the next reader", lambda: listener._reader not in (None, reader), 3)
    answered.set()
    with pytest.raises(AuthenticationError, match="not any more"):
        await told
    async with Worker(queue, lambda job: job.id, concurrency=5):
        assert await waiting == ("completed", f'"{second.id}"')
    await until("the end of the listener", lambda: listener._reader is None)


async def test_a_result_survives_the_restart_of_the_server(server: EmbeddedServer) -> None:
    """Whoever waits goes on waiting, and hears the end."""
    with like(server, "aof", appendfsync="always") as own:
        async with Queue("q", connection=own.url) as queue:
            job = await queue.add("a")
            result = asyncio.create_task(job.result(timeout=15))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(own.start)
            async with Worker(queue, lambda job: "after all"):
                assert await result == "after all"


# Reading and writing


async def test_a_job_is_a_snapshot(working_queue: Queue) -> None:
    """It says what stood there when it was read; `refresh` reads again."""
    job = await working_queue.add("good", 5)
    await ended(job)

    assert (job.return_value, job.finished_on, job.attempts_made) == (None, None, 0)
    await job.refresh()
    assert (job.return_value, job.attempts_made) == (5, 1)
    # A start is stamped with the time at which its worker asked, which may have had to connect first.
    assert (job.finished_on or 0) >= (job.processed_on or 0) >= job.timestamp - 5_000
    assert await job.is_completed()
    assert not await job.is_failed()


async def test_refreshing_what_is_gone(queue: Queue) -> None:
    """An error that names job and queue."""
    job = await queue.add("a")
    await job.remove()
    with pytest.raises(JobNotFoundError, match=rf"'{job.id}'.*:tests"):
        await job.refresh()
    assert await job.get_state() == "unknown"


async def test_progress_and_data_are_written_from_anywhere(queue: Queue) -> None:
    """Whoever is no worker needs no lock."""
    job = await queue.add("a", {"n": 1})
    await job.update_progress({"pct": 40})
    await job.update_data({"n": 2})

    assert (job.progress, job.data) == ({"pct": 40}, {"n": 2})
    copy = await queue.get_job(job.id)
    assert copy is not None
    assert (copy.progress, copy.data) == ({"pct": 40}, {"n": 2})


async def test_what_is_no_json_is_not_written(queue: Queue) -> None:
    """The error says whose progress or data; the old value stays."""
    job = await queue.add("a", {"n": 1})
    for write in (job.update_progress(float("nan")), job.update_data({"x": b""})):
        with pytest.raises(SerializationError, match=f"job '{job.id}'"):
            await write
    row: Any = 5
    with pytest.raises(ConfigurationError, match="a log row is text, got int"):
        await job.log(row)
    await job.refresh()
    assert (job.progress, job.data) == (0, {"n": 1})


async def test_logs_are_bounded(queue: Queue) -> None:
    """The newest rows, and of each row its beginning."""
    job = await queue.add("a", keep_logs=2)
    for n in range(4):
        await job.log(f"row {n}")
    assert (await queue.get_job_logs(job.id)).logs == ["row 2", "row 3"]

    await job.log("é" * 10_000)
    row = (await queue.get_job_logs(job.id)).logs[-1]
    assert len(row.encode()) <= 8 * 1024 + 3
    assert row.endswith("…")


async def test_who_says_nothing_keeps_the_last_thousand_rows(queue: Queue, server_url: str) -> None:
    """So that a job that logs in a loop does not fill the server; `Limits.log_rows` says how many."""
    job = await queue.add("a")
    await asyncio.gather(*(job.log(f"row {n}") for n in range(1002)))
    assert (await queue.get_job_logs(job.id)).count == 1000

    async with Queue(
        queue.name, connection=server_url, prefix=queue.prefix, limits=Limits(log_rows=2)
    ) as strict:
        counts = [
            await strict.add_job_log(job.id, "row"),
            await strict.add_job_log(job.id, "row", keep_logs=5),
        ]
    assert counts == [2, 3]


async def test_a_failed_job_is_run_again(queue: Queue) -> None:
    """`retry`: once more, or with all its attempts."""
    runs: list[int] = []

    async def process(job: Job) -> str:
        runs.append(job.attempts_made)
        if len(runs) < 5:
            raise ValueError("boom")
        return "at last"

    job = await queue.add("a", attempts=2)
    worker = Worker(queue, process)
    failed = Heard(worker, "failed")
    async with worker:
        await failed.wait(1)
        await job.retry()
        await failed.wait(2)
        await job.retry(reset_attempts_made=True)
        await until("the result", job.is_completed)
    assert runs == [0, 1, 2, 0, 1]
    with pytest.raises(JobNotInStateError):
        await job.retry()
    await job.retry("completed")
    assert await job.get_state() == "waiting"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attemptsMade": "4", "atm": "2"},
        {"atm": "x", "ats": "", "stc": "1.9", "timestamp": "1e3", "priority": "-"},
    ],
)
def test_records_of_others_can_be_read(fields: dict[str, str]) -> None:
    """Missing, legacy and odd fields give a job all the same."""
    job: Job[Any] = Job(Queue("q"), "1", fields)

    assert (job.name, job.data, job.progress, job.return_value) == ("", {}, 0, None)
    assert job.attempts_made == (4 if "attemptsMade" in fields else 0)
    assert job.stalled_counter == (1 if "stc" in fields else 0)
    assert job.timestamp == (1000 if "timestamp" in fields else 0)
    assert (job.attempts_started, job.priority, job.stacktrace, job.finished_on) == (0, 0, [], None)


def test_stored_text_that_is_no_json_is_named() -> None:
    """The error says which job and which part."""
    job: Job[Any] = Job(
        Queue("q"), "7", {"data": "{", "progress": "x", "returnvalue": "[", "stacktrace": "?"}
    )

    for attribute, part in (("data", "data"), ("progress", "progress"), ("return_value", "return value")):
        with pytest.raises(SerializationError, match=rf"job '7'.*{part}"):
            getattr(job, attribute)
    assert job.stacktrace == []


async def test_what_only_some_jobs_have(queue: Queue) -> None:
    """Why the next worker fails a job without running it, as the stalled check leaves it."""
    job = await queue.add("a")
    assert job.deferred_failure is None
    await queue.connection.execute("HSET", queue.keys.job(job.id), "defa", "job stalled too often")
    await job.refresh()
    assert job.deferred_failure == "job stalled too often"


async def test_a_log_can_be_cleared(queue: Queue) -> None:
    """But for the newest rows, if asked."""
    job = await queue.add("a")
    for row in ("1", "2", "3"):
        await job.log(row)
    await job.clear_logs(1)
    assert (await queue.get_job_logs(job.id)).logs == ["3"]
    await job.clear_logs()
    assert (await queue.get_job_logs(job.id)).count == 0
