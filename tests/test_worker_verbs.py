"""What can be asked of a worker while it runs: its concurrency, pauses, cancellations, limits, and its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from tests.patience import Heard, ended, until, within
from toril import STOP, ConfigurationError, Connection, Custom, Job, JobFailedError, Queue, Worker
from toril._server import OLDEST_REDIS, look_at_server
from toril.connection import Lane

Client: TypeAlias = Any


async def test_the_concurrency_changes_while_it_runs(queue: Queue) -> None:
    """More slots are filled at once; fewer let running jobs end, and then hold."""
    running: set[str] = set()
    most, go_on = 0, asyncio.Semaphore(0)

    async def process(job: Job) -> None:
        nonlocal most
        running.add(job.id)
        most = max(most, len(running))
        await go_on.acquire()
        running.discard(job.id)

    worker = Worker(queue, process, concurrency=1)
    async with worker:
        jobs = await queue.add_bulk([("a", n) for n in range(9)])
        await until("one job", lambda: len(running) == 1)
        worker.concurrency = 4
        assert worker.concurrency == 4
        await until("four jobs", lambda: len(running) == 4)
        worker.concurrency = 2
        for _ in range(4):
            go_on.release()
        await until("two jobs", lambda: len(running) == 2)
        most = 0
        for _ in range(5):
            go_on.release()
        await ended(*jobs)
    assert most <= 2
    with pytest.raises(ConfigurationError, match="concurrency"):
        worker.concurrency = 0


async def test_pausing_waits_for_running_jobs(queue: Queue) -> None:
    """Unless told otherwise; and a worker that is paused before it starts fetches nothing."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process(_: Job) -> None:
        started.set()
        await go_on.wait()

    job = await queue.add("a")
    worker = Worker(queue, process)
    await worker.pause()
    assert worker.is_paused
    ready = Heard(worker, "ready")
    async with worker:
        await ready.wait()
        assert await job.get_state() == "waiting"
        await worker.resume()
        assert not worker.is_paused
        async with within("the start"):
            await started.wait()
        await worker.pause(do_not_wait_active=True)
        assert await job.get_state() == "active"
        pausing = asyncio.create_task(worker.pause())
        await asyncio.sleep(0)
        assert not pausing.done()
        go_on.set()
        async with within("the pause"):
            await pausing
        assert await job.get_state() == "completed"


async def test_pausing_waits_no_longer_than_the_pause(queue: Queue) -> None:
    """Where somebody else resumes the worker meanwhile, whoever pauses it does not wait for the jobs that follow."""
    started = asyncio.Event()

    async def process(_: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    await queue.add("a")
    worker = Worker(queue, process, grace=0)
    async with worker:
        async with within("the start"):
            await started.wait()
        pausing = asyncio.create_task(worker.pause())
        await asyncio.sleep(0)
        await worker.resume()
        async with within("the end of the wait", 5):
            await pausing
        assert not worker.is_paused


async def test_closing_waits_for_the_end(queue: Queue) -> None:
    """`close` returns when the worker has ended; by force, what runs is handed back. Closing twice is harmless."""
    started = asyncio.Event()

    async def process(_: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    job = await queue.add("a")
    worker = Worker(queue, process)
    told = Heard(worker, "closing", "closed")
    run = asyncio.create_task(worker.run(handle_signals=False))
    async with within("the start"):
        await started.wait()
    async with within("the end"):
        await worker.close(force=True)
    assert not worker.is_running
    assert await told.wait(2) == [("closing",), ("closed",)]
    assert await job.get_state() == "waiting"
    await worker.close()
    await run


async def test_a_cancellation_says_why(queue: Queue) -> None:
    """In the failed reason, and to the processor itself."""
    started = asyncio.Event()
    heard: list[str] = []

    async def process(_: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            heard.append(str(error))
            raise

    async with Worker(queue, process) as worker:
        job = await queue.add("a")
        async with within("the start"):
            await started.wait()
        assert worker.cancel_all_jobs("the shop has closed") == 1
        with pytest.raises(JobFailedError, match="the job was cancelled: the shop has closed"):
            await job.result(timeout=20)
    assert heard == ["the shop has closed"]


async def test_locks_are_told_of(queue: Queue, client: Client) -> None:
    """Those that were extended, and those that could not be."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def process(_: Job) -> None:
        started.set()
        await stop.wait()

    worker = Worker(queue, process, lock_duration=4, lock_renew_time=0.05)
    told = Heard(worker, "locks_renewed", "lock_renewal_failed")
    async with worker:
        job = await queue.add("a")
        async with within("the start"):
            await started.wait()
        assert (await told.wait(1))[0] == ("locks_renewed", [job.id])
        await client.set(f"{queue.keys.job(job.id)}:lock", "somebody else's")
        await until("the loss", lambda: ("lock_renewal_failed", [job.id]) in told.told)


@pytest.mark.parametrize("stop", [STOP, -1])
async def test_a_strategy_says_stop_in_both_ways(queue: Queue, stop: Any) -> None:
    """By toril's word, and by BullMQ's number."""

    async def process(_: Job) -> None:
        raise ValueError("no luck")

    async with Worker(queue, process, backoff_strategy=lambda *_: stop):
        job = await queue.add("a", attempts=5, backoff=Custom("mine"))
        with pytest.raises(JobFailedError):
            await job.result(timeout=20)
    await job.refresh()
    assert job.attempts_made == 1


async def test_who_fetches_by_hand_checks_by_hand(queue: Queue) -> None:
    """Jobs of silent workers are taken back by a call, once per interval; a paused worker fetches nothing."""
    worker = Worker(queue, print, lock_duration=0.05, stalled_interval=0.05)
    stalled = Heard(worker, "stalled")
    await queue.add("a")
    await worker.pause()
    assert await worker.get_next_job() is None
    await worker.resume()
    job = await worker.get_next_job()
    assert job is not None
    await until("the stalled job", worker.check_stalled_jobs)
    assert await stalled.wait(1) == [("stalled", job.id)]
    assert await job.get_state() == "waiting"


async def test_a_worker_closes_the_queue_for_a_while(queue: Queue) -> None:
    """As the queue's own verb does."""
    worker = Worker(queue, print, limiter=(10, 60))
    await worker.rate_limit(30)
    assert 25 < await queue.get_rate_limit_ttl(10) <= 30
    await queue.add("a")
    assert await worker.get_next_job() is None


class Said(Connection):
    """A connection whose server says of itself what a test wants."""

    text = ""

    async def execute(self, *args: Any) -> Any:
        return self.text if args == ("INFO",) else await super().execute(*args)


async def test_a_server_that_is_too_old_is_refused(server_url: str, prefix: str) -> None:
    """By its version, unless the check is skipped; others than Redis are taken for new enough."""
    async with Said(server_url) as connection:
        connection.text = "# Server\r\nredis_version:6.0.16\r\n"
        with pytest.raises(ConfigurationError, match=r"6\.0\.16 is too old.*skip_version_check"):
            await look_at_server(connection)
        await look_at_server(connection, skip_version_check=True)
        async with Queue("q", connection=connection, prefix=prefix) as queue:
            with pytest.raises(ConfigurationError, match="too old"):
                await Worker(queue, print).run(handle_signals=False)
            worker = Worker(queue, print, skip_version_check=True)
            ready = Heard(worker, "ready")
            async with worker:
                await ready.wait()
        for text in ("redis_version:6.2.0\r\n", "redis_version:6.0.1\r\nvalkey_version:8.0\r\n", ""):
            connection.text = text
            await look_at_server(connection)
    from toril.cli.doctor import OLDEST_REDIS as OF_DOCTOR

    assert OLDEST_REDIS == OF_DOCTOR


async def test_a_repeat_strategy_reads_patterns(server_url: str, prefix: str) -> None:
    """The program's own words for times, from the first run to the next, for the queue and for its workers."""
    asked: list[tuple[str, str]] = []

    def strategy(after_ms: int, repeat: Any, name: str) -> datetime:
        asked.append((repeat["pattern"], name))
        return datetime.fromtimestamp(after_ms / 1000, UTC) + timedelta(hours=1)

    async def process(_: Job) -> None: ...

    async with Queue("tests", connection=server_url, prefix=prefix, repeat_strategy=strategy) as queue:
        first = await queue.upsert_job_scheduler("tide", pattern="high tide", name="warn")
        assert first is not None
        assert 3_590_000 < first.delay <= 3_600_000
        await first.promote()
    async with Queue("tests", connection=server_url, prefix=prefix) as queue:
        worker = Worker("tests", process, connection=server_url, prefix=prefix, repeat_strategy=strategy)
        async with worker:
            await ended(await queue.get_job_or_raise(first.id))
        (pending,) = await queue.get_delayed()
        assert (pending.scheduler_id, pending.name, pending.data) == ("tide", "warn", {})
        with pytest.raises(ConfigurationError, match="five fields"):
            await queue.upsert_job_scheduler("other", pattern="high tide")
        with pytest.raises(ConfigurationError, match="repeat_strategy"):
            Worker(queue, process, repeat_strategy=strategy)
    assert set(asked) == {("high tide", "warn")}
    assert len(asked) == 2


@pytest.mark.parametrize("answer", [1, True, "soon"])
async def test_a_repeat_strategy_leads_onwards(server_url: str, prefix: str, answer: Any) -> None:
    """A time that has passed would run for ever; what is no time is named."""
    async with Queue("q", connection=server_url, prefix=prefix, repeat_strategy=lambda *_: answer) as queue:
        with pytest.raises(ConfigurationError, match="repeat_strategy must return a time after"):
            await queue.upsert_job_scheduler("tide", pattern="high tide")
        queue.repeat_strategy = lambda *_: None
        assert await queue.upsert_job_scheduler("tide", pattern="never") is None


async def test_how_many_events_a_queue_keeps(server_url: str, prefix: str) -> None:
    """A setting of the queue that the first add writes, and that all clients obey."""
    async with Queue("tests", connection=server_url, prefix=prefix, events_max_len=500) as queue:
        await asyncio.gather(*(queue.add("a", job_id=f"job-{n}") for n in range(5)))
        assert (await queue.get_meta())["opts.maxLenEvents"] == "500"
        assert sorted(await queue.get_ids("waiting")) == [f"job-{n}" for n in range(5)]
    with pytest.raises(ConfigurationError, match="events_max_len"):
        Queue("tests", events_max_len=0)


async def test_a_second_lane_is_for_work_that_keeps_coming(
    server_url: str, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has a few jobs now and then keeps two connections: one for all calls, one to wait."""

    async def process(_: Job) -> None: ...

    async with Connection(server_url) as own:
        lanes: list[Lane] = []
        new_lane = own.lane

        def noted(**options: Any) -> Lane:
            lanes.append(new_lane(**options))
            return lanes[-1]

        monkeypatch.setattr(own, "lane", noted)
        monkeypatch.setattr("toril._loops.fetching._OFTEN", 3600)
        where = Queue(queue.name, connection=own, prefix=queue.prefix)
        async with Worker(where, process, concurrency=10):
            for _ in range(3):
                await ended(*await queue.add_bulk([("a", n) for n in range(40)]))
            assert sum(lane.is_open for lane in lanes) == 2

            monkeypatch.setattr("toril._loops.fetching._OFTEN", 0)
            await ended(*await queue.add_bulk([("a", n) for n in range(40)]))
            assert sum(lane.is_open for lane in lanes) == 3
