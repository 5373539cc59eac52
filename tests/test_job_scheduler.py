"""Job schedulers as their users see them, and the workers that keep them going. The scripts: `tests/scripts/`."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import TurnedClock
from tests.patience import until
from toril import (
    ConfigurationError,
    ConnectionLostError,
    Fixed,
    Job,
    JobOptions,
    JobScheduler,
    Queue,
    SchedulerJobError,
    Worker,
)
from toril.job_scheduler import mend_job_schedulers, plan_next_run
from toril.scripts import Fetch, FinishedJob

Client = Any
# redis-py's types mix sync and async answers.
MINUTE = 60_000
NOW = 1_800_000_000_000


@pytest.fixture
async def turned(queue: Queue) -> TurnedClock:
    """The queue's clock, at the beginning of a minute."""
    clock = TurnedClock(NOW)
    queue.clock = clock
    return clock


async def start(queue: Queue) -> list[str]:
    """Take all jobs that are due, plan what follows, end them; return their ids."""
    ids: list[str] = []
    while True:
        fetched = await queue.scripts.move_to_active(queue.clock.now_ms(), Fetch(1, "t", 30_000))
        if not fetched.jobs:
            return ids
        ((job_id, record),) = fetched.jobs
        await plan_next_run(queue, Job(queue, job_id, record, "t"))
        end = FinishedJob(job_id, "t", "completed", "null")
        await queue.scripts.move_to_finished(queue.clock.now_ms(), [end], Fetch(0, "t", 30_000))
        ids.append(job_id)


def runs(*times: int) -> list[str]:
    return [f"repeat:s:{time}" for time in times]


async def test_a_scheduler_is_told_back(queue: Queue, turned: TurnedClock) -> None:
    """All that was defined, the next run and how many were planned."""
    options: JobOptions = {"attempts": 3, "backoff": Fixed(2), "priority": 2}
    job = await queue.upsert_job_scheduler(
        "nightly",
        pattern="0 0 3 * * *",
        tz="Europe/Stockholm",
        limit=10,
        start_date=datetime(2027, 2, 1, tzinfo=UTC),
        end_date=NOW + 900 * 24 * 60 * MINUTE,
        name="report",
        data={"kind": "daily"},
        options=options,
        missed="once",
    )
    assert job is not None
    assert (job.name, job.data, job.priority, job.scheduler_id) == ("report", {"kind": "daily"}, 2, "nightly")
    assert await job.is_delayed()

    assert await queue.get_job_scheduler("nightly") == JobScheduler(
        id="nightly",
        name="report",
        next_ms=round(datetime(2027, 2, 1, 2, tzinfo=UTC).timestamp() * 1000),
        iterations=1,
        pattern="0 0 3 * * *",
        tz="Europe/Stockholm",
        limit=10,
        start_ms=round(datetime(2027, 2, 1, tzinfo=UTC).timestamp() * 1000),
        end_ms=NOW + 900 * 24 * 60 * MINUTE,
        offset_ms=0,
        missed="once",
        data={"kind": "daily"},
        options={"attempts": 3, "backoff": {"type": "fixed", "delay": 2000}, "priority": 2},
    )
    assert await queue.get_job_scheduler("no-such") is None


async def test_schedulers_are_listed_by_their_next_run(queue: Queue, turned: TurnedClock) -> None:
    """The last first, unless asked otherwise; in pages; with a count."""
    for number in (2, 1, 3):
        await queue.upsert_job_scheduler(f"s{number}", every=60, offset=number)

    assert [one.id for one in await queue.get_job_schedulers()] == ["s3", "s2", "s1"]
    assert [one.id for one in await queue.get_job_schedulers(0, 1, ascending=True)] == ["s1", "s2"]
    assert await queue.get_job_schedulers_count() == 3


async def test_a_removed_scheduler_is_gone(queue: Queue, turned: TurnedClock) -> None:
    """With its pending job."""
    await queue.upsert_job_scheduler("s", pattern="* * * * *")

    assert await queue.remove_job_scheduler("s")
    assert not await queue.remove_job_scheduler("s")
    assert await queue.get_job_schedulers() == []
    assert await queue.get_delayed() == []


async def test_an_interval_is_told_back(queue: Queue, turned: TurnedClock) -> None:
    """In milliseconds, with its offset."""
    await queue.upsert_job_scheduler("s", every=60, offset=7)
    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert (scheduler.every_ms, scheduler.offset_ms, scheduler.pattern) == (MINUTE, 7000, None)


async def test_its_pending_job_cannot_be_removed(queue: Queue) -> None:
    """Remove the scheduler instead, says `SchedulerJobError`."""
    job = await queue.upsert_job_scheduler(
        "report", every=60, start_date=datetime.now(UTC) + timedelta(hours=1)
    )
    assert job is not None
    with pytest.raises(SchedulerJobError, match="remove the scheduler"):
        await job.remove()
    assert await job.is_delayed()


async def test_a_pattern_without_a_zone_is_utc_for_all(queue: Queue, turned: TurnedClock) -> None:
    """It is written down, so that workers in other zones agree."""
    await queue.upsert_job_scheduler("s", pattern="0 3 * * *")

    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert scheduler.tz == "UTC"


async def test_default_job_options_hold_for_its_jobs(server_url: str, prefix: str) -> None:
    """Those of the scheduler come first."""
    async with Queue(
        "q",
        connection=server_url,
        prefix=prefix,
        default_job_options={"attempts": 4, "priority": 3, "delay": 9},
    ) as queue:
        job = await queue.upsert_job_scheduler("s", every=60, options={"priority": 1})
        assert job is not None
        assert (job.options.attempts, job.priority) == (4, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either every or a pattern"),
        ({"every": 1, "pattern": "* * * * *"}, "either every or a pattern"),
        ({"every": 0}, "at least a millisecond"),
        ({"pattern": "61 * * * *"}, "minute 61"),
        ({"pattern": "* * * *"}, "five fields"),
        ({"pattern": "H * * * *"}, "'H'"),
        ({"pattern": "* * * * *", "tz": "Europe/Nowhere"}, "no time zone"),
        ({"pattern": "* * * * *", "offset": 1}, "offset belongs to every"),
        ({"every": 1, "tz": "UTC"}, "tz belongs to a pattern"),
        ({"every": 1, "offset": 1}, "shorter than every"),
        ({"every": 9, "offset": 1, "immediately": True}, "exclude each other"),
        ({"pattern": "* * * * *", "immediately": True, "start_date": NOW}, "exclude each other"),
        ({"every": 1, "limit": 0}, "limit"),
        ({"every": 1, "end_date": NOW - 1}, "in the past"),
        ({"every": 1, "start_date": NOW + 9, "end_date": NOW + 5}, "before start_date"),
        ({"every": 1, "start_date": 1_800_000_000}, "epoch milliseconds"),
        ({"every": 1, "missed": "never"}, "skip, once, all"),
        ({"every": 1, "options": {"job_id": "x"}}, "'job_id'"),
        ({"every": 1, "options": {"delay": 1}}, "'delay'"),
        ({"every": 1, "options": {"atempts": 1}}, "did you mean 'attempts'"),
    ],
)
async def test_what_cannot_be_is_refused(
    queue: Queue, turned: TurnedClock, client: Client, options: dict[str, Any], says: str
) -> None:
    """With the scheduler, the queue and the reason; nothing is stored."""
    with pytest.raises(ConfigurationError, match=says) as raised:
        await queue.upsert_job_scheduler("s", **options)

    assert "job scheduler 's' in queue 'tests'" in str(raised.value)
    assert await client.exists(queue.keys.key("repeat")) == 0


@pytest.mark.parametrize("scheduler_id", ["", "a:1", "name::123::5", "a\nb"])
async def test_an_id_that_looks_like_another_is_refused(queue: Queue, scheduler_id: str) -> None:
    """A run of the scheduler `a` has the key of a scheduler `a:1`."""
    with pytest.raises(ConfigurationError, match="id"):
        await queue.upsert_job_scheduler(scheduler_id, every=60)


async def test_a_pattern_that_fires_no_more_makes_nothing(queue: Queue, turned: TurnedClock) -> None:
    """Its end comes first."""
    assert await queue.upsert_job_scheduler("s", pattern="0 0 1 1 *", end_date=NOW + 5) is None
    assert await queue.get_job_schedulers_count() == 0


async def test_upserts_fire_neither_early_nor_twice(queue: Queue, turned: TurnedClock) -> None:
    """Called before each step of an hour, as by workers that come and go: one run a minute, at its time."""
    fired: list[str] = []
    for _ in range(240):
        await queue.upsert_job_scheduler("s", pattern="* * * * *")
        turned.turn(15)
        due = await start(queue)
        assert all(int(job_id.rpartition(":")[2]) == turned.now_ms() for job_id in due)
        fired += due

    assert fired == runs(*(NOW + n * MINUTE for n in range(1, 61)))


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
async def test_what_becomes_of_missed_runs(queue: Queue, turned: TurnedClock, missed: Any) -> None:
    """Of a pattern as of an interval: the pending run is late; the others are skipped, or made up for."""
    late = {"skip": [1], "once": [1, 5], "all": [1, 2, 3, 4, 5]}[missed]
    definitions: list[dict[str, Any]] = [{"pattern": "* * * * *"}, {"every": 60, "start_date": NOW + MINUTE}]
    for definition in definitions:
        turned.turn(timedelta(milliseconds=NOW - turned.now_ms()))
        await queue.upsert_job_scheduler("s", missed=missed, **definition)
        turned.turn(5.5 * 60)

        assert await start(queue) == runs(*(NOW + n * MINUTE for n in late))
        turned.turn(30)
        assert await start(queue) == runs(NOW + 6 * MINUTE)
        await queue.remove_job_scheduler("s")
        await client_forgets_jobs(queue)


async def test_an_upsert_after_an_outage_forgets_no_run_to_be_made_up_for(
    queue: Queue, turned: TurnedClock
) -> None:
    """As a worker does that comes back: first it defines its schedulers. Another pattern begins anew."""
    await queue.upsert_job_scheduler("s", pattern="* * * * *", missed="all")
    turned.turn(3.5 * 60)
    await queue.upsert_job_scheduler("s", pattern="* * * * *", missed="all")

    assert await start(queue) == runs(*(NOW + n * MINUTE for n in range(1, 4)))
    turned.turn(5 * 60)
    await queue.upsert_job_scheduler("s", pattern="*/2 * * * *", missed="all")
    assert await start(queue) == []


async def client_forgets_jobs(queue: Queue) -> None:
    for job in await queue.get_jobs():
        await job.remove()


async def test_a_limit_ends_it(queue: Queue, turned: TurnedClock) -> None:
    """The record stays, and nobody mends what is not broken."""
    await queue.upsert_job_scheduler("s", every=60, limit=2)
    for _ in range(4):
        await start(queue)
        turned.turn(60)

    assert await mend_job_schedulers(queue) == []
    assert len(await queue.get_completed()) == 2
    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert (scheduler.iterations, scheduler.next_ms) == (2, NOW + MINUTE)


async def test_an_end_ends_it(queue: Queue, turned: TurnedClock) -> None:
    """A pattern fires no more after it, and is not mended."""
    await queue.upsert_job_scheduler("s", pattern="* * * * *", end_date=NOW + 2 * MINUTE)
    fired: list[str] = []
    for _ in range(4):
        turned.turn(60)
        fired += await start(queue)

    assert fired == runs(NOW + MINUTE, NOW + 2 * MINUTE)
    assert await mend_job_schedulers(queue) == []


@pytest.mark.parametrize("what", ["its job", "its place in the line"])
async def test_a_lost_pending_job_is_planned_again(
    queue: Queue, turned: TurnedClock, client: Client, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The same run at the same time, once, with a word in the log."""
    job = await queue.upsert_job_scheduler("s", pattern="* * * * *", data={"a": 1})
    assert job is not None
    await client.delete(queue.keys.key("delayed"), *([queue.keys.job(job.id)] if what == "its job" else []))

    assert await mend_job_schedulers(queue) == ["s"]
    assert await mend_job_schedulers(queue) == []
    turned.turn(60)
    assert await start(queue) == [job.id]
    assert "job scheduler 's' had no pending job" in caplog.text


async def test_a_run_that_planned_nothing_is_followed_up(queue: Queue, turned: TurnedClock) -> None:
    """A worker that knows nothing of schedulers ran it."""
    await queue.upsert_job_scheduler("s", every=60, limit=9)
    fetched = await queue.scripts.move_to_active(turned.now_ms(), Fetch(1, "t", 30_000))
    end = FinishedJob(fetched.jobs[0][0], "t", "completed", "null")
    await queue.scripts.move_to_finished(turned.now_ms(), [end], Fetch(0, "t", 30_000))

    turned.turn(150)
    assert await mend_job_schedulers(queue) == ["s"]
    (pending,) = await queue.get_delayed()
    assert pending.id == f"repeat:s:{NOW + 3 * MINUTE}"
    assert pending.options.raw["repeat"]["count"] == 2


async def test_a_worker_keeps_it_going(queue: Queue) -> None:
    """Each run plans the next before its processor begins."""
    pending: list[int] = []

    async def process(job: Job) -> None:
        counts = await queue.get_job_counts("delayed", "waiting")
        pending.append(sum(counts.values()))

    await queue.upsert_job_scheduler("s", every=0.05)
    async with Worker(queue, process):
        await until("five runs", lambda: len(pending) >= 5)
    assert set(pending) == {1}


async def test_a_failing_run_is_followed_too(queue: Queue) -> None:
    """The scheduler does not care for the end of a run, nor for its second attempt."""
    runs_of: dict[str, int] = {}

    async def process(job: Job) -> None:
        runs_of[job.id] = runs_of.get(job.id, 0) + 1
        raise ValueError("boom")

    await queue.upsert_job_scheduler("s", every=0.05, options={"attempts": 2})
    async with Worker(queue, process, concurrency=2):
        await until("three runs", lambda: list(runs_of.values()).count(2) >= 3)
    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert scheduler.iterations in {len(runs_of), len(runs_of) + 1}


async def test_a_worker_mends_at_its_stalled_check(queue: Queue, client: Client) -> None:
    """Without anybody's help."""
    ran = asyncio.Event()

    async def process(job: Job) -> None:
        ran.set()

    await queue.upsert_job_scheduler("s", every=0.3, offset=0.1)
    await client.delete(queue.keys.key("delayed"))
    async with Worker(queue, process, stalled_interval=0.1):
        await until("a run", ran.is_set)


async def test_a_fault_while_planning_delays_the_run(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried until it works, and only then the processor begins."""
    order: list[str] = []
    plan = queue.scripts.update_job_scheduler

    async def faulty(*args: Any, **kwargs: Any) -> str:
        order.append("planning")
        if len(order) < 3:
            raise ConnectionLostError("no answer")
        return await plan(*args, **kwargs)

    async def process(job: Job) -> None:
        order.append("running")

    monkeypatch.setattr(queue.scripts, "update_job_scheduler", faulty)
    await queue.upsert_job_scheduler("s", every=60)
    with caplog.at_level(logging.WARNING):
        async with Worker(queue, process):
            await until("the run", lambda: "running" in order)
    assert order == ["planning", "planning", "planning", "running"]
    assert await queue.get_job_counts("delayed") == {"delayed": 1}


async def test_a_run_whose_next_nobody_here_knows_waits(queue: Queue, client: Client) -> None:
    """With a pattern that means nothing to this worker it does not run: that would end the scheduler."""
    ran: list[str] = []

    async def process(job: Job) -> None:
        ran.append(job.id)

    job = await queue.upsert_job_scheduler("s", pattern="0 0 1 1 *", immediately=True)
    assert job is not None
    options = await client.hget(queue.keys.job(job.id), "opts")
    assert options is not None
    await client.hset(queue.keys.job(job.id), "opts", options.replace("0 0 1 1 *", "H H * * *"))
    worker = Worker(queue, process)
    errors: list[Exception] = []
    worker.on("error", errors.append)
    async with worker:
        await until("it to be put off", job.is_delayed)
    assert ran == []
    assert isinstance(errors[0], ConfigurationError)
    assert await queue.get_job_schedulers_count() == 1


def test_without_asyncio(server_url: str, prefix: str) -> None:
    """The same verbs."""
    queue = Queue("tests", connection=server_url, prefix=prefix).sync
    job = queue.upsert_job_scheduler("s", every=60, data={"a": 1})
    assert job is not None
    assert job.data == {"a": 1}
    scheduler = queue.get_job_scheduler("s")
    assert scheduler is not None
    assert [one.id for one in queue.get_job_schedulers()] == ["s"]
    assert queue.get_job_schedulers_count() == 1
    assert queue.remove_job_scheduler("s")
    queue.close()
