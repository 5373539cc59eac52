"""A worker's health says whether what it has to do gets done."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.patience import ended, until
from toril import Job, Queue, Worker, WorkerHealth
from toril._loops import patience, progress
from toril._loops.fetching import Fetching
from toril._loops.heartbeat import Heartbeat
from toril.embedded import EmbeddedServer
from toril.health import HealthState


async def nothing(_: Job) -> None: ...


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is silent for a second is taken to be stuck; else it takes the longest wait and half a minute."""
    monkeypatch.setattr(progress, "LONGEST_BLOCK", 0.1)
    monkeypatch.setattr(progress, "_MARGIN", 0.9)


@asynccontextmanager
async def watched(*workers: Worker) -> AsyncGenerator[list[WorkerHealth]]:
    """Collect what workers say of themselves meanwhile, as a thread asks: it does so while the loop is blocked too."""
    seen: list[WorkerHealth] = []
    is_over = False

    def look() -> None:
        while not is_over:
            seen.extend(worker.health() for worker in workers)
            time.sleep(0.05)

    looking = asyncio.get_running_loop().run_in_executor(None, look)
    try:
        yield seen
    finally:
        is_over = True
        await looking


def states(seen: list[WorkerHealth]) -> set[HealthState]:
    return {health.state for health in seen}


async def is_now(worker: Worker, state: HealthState) -> WorkerHealth:
    await until(f"the state {state}", lambda: worker.health().state == state)
    return worker.health()


async def test_from_its_start_to_its_end(queue: Queue) -> None:
    """It runs or it does not; what it says names the queue and the worker."""
    worker = Worker(queue, nothing, concurrency=7, name="one", skip_stalled_check=True)
    before = worker.health()
    assert (before.state, before.is_alive, before.is_ready) == ("stopped", False, False)
    async with worker:
        health = worker.health()
        assert (health.queue, health.worker) == (queue.name, "one")
        assert (health.state, health.why) == ("ok", "0 of 7 jobs running")
        assert (health.running, health.concurrency) == (0, 7)
        assert health.is_alive
        assert health.is_ready
    assert worker.health().state == "stopped"


async def test_it_is_starting_until_the_server_answers() -> None:
    """That is no reason to restart it, and it takes no part."""
    with EmbeddedServer() as server:
        url = server.url
    worker = Worker("tests", nothing, connection=url)
    async with worker:
        health = worker.health()
        assert (health.state, health.is_alive, health.is_ready) == ("starting", True, False)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("why", ["idle", "full", "paused", "limited", "the queue is paused"])
async def test_who_has_nothing_to_do_is_well(queue: Queue, why: str) -> None:
    """However long it lasts: it waits, its places are taken, or somebody has asked it to wait."""
    go_on = asyncio.Event()

    async def wait(_: Job) -> None:
        await go_on.wait()

    worker = Worker(queue, wait, drain_delay=0.2, skip_stalled_check=True)
    async with worker:
        jobs: list[Job[Any]] = []
        match why:
            case "full":
                jobs = [await queue.add("a") for _ in range(3)]
                await until("a full worker", lambda: worker.health().running == 1)
            case "paused":
                await worker.pause()
                assert worker.health().why == "paused; 0 of 1 jobs running"
            case "limited":
                await worker.rate_limit(60)
                await queue.add("a")
            case "the queue is paused":
                await queue.pause()
                await queue.add("a")
            case _:
                pass
        async with watched(worker) as seen:
            await asyncio.sleep(2)
        assert states(seen) == {"ok"}
        go_on.set()
        await ended(*jobs)
        await worker.resume()


@pytest.mark.usefixtures("soon")
async def test_who_works_is_well(queue: Queue) -> None:
    """Jobs come and go for longer than a silence may last."""

    async def brief(_: Job) -> None:
        await asyncio.sleep(0.1)

    worker = Worker(queue, brief, concurrency=2, drain_delay=0.2, skip_stalled_check=True)
    jobs = await queue.add_bulk([("a", None)] * 40)
    async with worker, watched(worker) as seen:
        await ended(*jobs)
    assert states(seen) <= {"ok", "stopping"}
    assert max(health.silent_for for health in seen) < 0.9


def takes_no_part(seen: list[WorkerHealth]) -> None:
    """What was seen while a server was away."""
    away = [health for health in seen if health.state == "unreachable"]
    assert away
    assert {health.is_alive for health in away} == {True}
    assert {health.is_ready for health in away} == {False}
    assert "stuck" not in states(seen)


@pytest.mark.usefixtures("soon")
async def test_a_dead_server_is_no_reason_for_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers take no part in the work, and do so again when there is one."""
    # A silence of a second is long here, so tries have to come as often.
    monkeypatch.setattr(patience, "_LONGEST", 0.3)
    with EmbeddedServer() as first:
        worker = Worker("tests", nothing, connection=first.url, drain_delay=0.2, skip_stalled_check=True)
        async with worker, watched(worker) as seen:
            assert worker.health().is_ready
            os.kill(first.pid, signal.SIGKILL)
            health = await is_now(worker, "unreachable")
            assert health.why.startswith("the last call to the server failed")
            await asyncio.sleep(2)
            with EmbeddedServer(port=first.port):
                await is_now(worker, "ok")
                await worker.close()
        takes_no_part(seen)


async def test_a_silent_server_is_no_reason_for_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to it is given up after its deadline, which is something that comes of it."""
    monkeypatch.setattr(progress, "_MARGIN", 0)
    with EmbeddedServer() as server:
        worker = Worker("tests", nothing, connection=server.url, drain_delay=0.2, skip_stalled_check=True)
        async with worker, watched(worker) as seen:
            os.kill(server.pid, signal.SIGSTOP)
            await is_now(worker, "unreachable")
            os.kill(server.pid, signal.SIGCONT)
            await is_now(worker, "ok")
        takes_no_part(seen)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_worker_that_hangs_is_stuck(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, is_paused: bool
) -> None:
    """The process lives, the loop turns, and no job is fetched, or no end written: no other check sees that."""
    call, hangs, goes_on = Fetching._call, False, asyncio.Event()

    async def hang(self: Fetching, *args: Any) -> None:
        if hangs:
            await goes_on.wait()
        await call(self, *args)

    async def process(_: Job) -> None:
        nonlocal hangs
        hangs = is_paused

    monkeypatch.setattr(Fetching, "_call", hang)
    worker = Worker(queue, process, drain_delay=0.2, skip_stalled_check=True)
    async with worker:
        job = await queue.add("a")
        if is_paused:
            await until("a run", lambda: hangs)
            await worker.pause(do_not_wait_active=True)
        else:
            await ended(job)
            hangs = True
            job = await queue.add("a")
        health = await is_now(worker, "stuck")
        assert (health.is_alive, health.is_ready) == (False, False)
        assert health.silent_for >= 1
        assert health.why.startswith("nothing fetched or ended, and no error, for 1 s")
        goes_on.set()
        await worker.resume()
        await ended(job)
        assert worker.health().is_ready


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_blocked_loop_is_stuck_if_it_has_room(queue: Queue, concurrency: int) -> None:
    """Who holds up what else could run is; a worker whose only place is taken is just busy."""

    async def block(_: Job) -> None:
        time.sleep(2.5)  # noqa: ASYNC251 - that is the fault

    worker = Worker(queue, block, concurrency=concurrency, drain_delay=0.2, skip_stalled_check=True)
    async with worker, watched(worker) as seen:
        await ended(await queue.add("a"))
        assert ("stuck" in states(seen)) == (concurrency == 2)
        await is_now(worker, "ok")


@pytest.mark.usefixtures("soon")
async def test_the_watcher_is_watched(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the thread that renews locks, jobs would be lost to others."""
    monkeypatch.setattr(Heartbeat, "_beat", lambda self: 3600.0)
    worker = Worker(queue, nothing, drain_delay=0.2, skip_stalled_check=True)
    async with worker:
        health = await is_now(worker, "stuck")
    assert health.why.startswith("the thread that renews locks has done nothing for 3 s")


async def test_a_worker_that_stops_says_so(queue: Queue) -> None:
    """It is not to be given work, nor killed, while it waits for its jobs."""
    go_on = asyncio.Event()

    async def wait(_: Job) -> None:
        await go_on.wait()

    worker = Worker(queue, wait, skip_stalled_check=True)
    async with worker:
        job = await queue.add("a")
        await until("a job", lambda: worker.health().running == 1)
        worker.stop()
        health = await is_now(worker, "stopping")
        assert (health.is_alive, health.is_ready) == (True, False)
        go_on.set()
    await ended(job)


async def test_it_tells_how_far_the_servers_clock_is_ahead(queue: Queue) -> None:
    """As it was measured; two clocks of one host agree."""
    worker = Worker(queue, nothing, skip_stalled_check=True)
    async with worker:
        assert abs(worker.health().clock_offset_ms) < 1000
        now = time.time()
        queue.connection.clock.learn(now, now, int(now) + 3600, 0)
        assert worker.health().clock_offset_ms == pytest.approx(3_600_000, abs=1001)


async def test_work_that_has_just_come_up_is_not_old(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has looked since the worker was full, its first free place says nothing yet."""
    call, runs, goes_on = Fetching._call, asyncio.Event(), asyncio.Event()

    async def hang(self: Fetching, *args: Any) -> None:
        if runs.is_set():
            await goes_on.wait()
        await call(self, *args)

    async def process(_: Job) -> None:
        runs.set()
        await asyncio.sleep(0.5)

    monkeypatch.setattr(Fetching, "_call", hang)
    monkeypatch.setattr(Heartbeat, "_beat", lambda self: 3600.0)
    worker = Worker(queue, process, drain_delay=0.2, skip_stalled_check=True)
    async with worker:
        job = await queue.add("a")
        await runs.wait()
        silences = [worker.health().silent_for]
        for seconds in (0.6, 0.1):
            await asyncio.sleep(seconds)
            silences.append(worker.health().silent_for)
        goes_on.set()
        await ended(job)
    assert silences[:2] == [0, 0]
    assert 0.1 <= silences[2] < 0.5


async def test_a_clock_that_is_off_is_told_once(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """By the worker's thread, with the direction; and again only when it has been right meanwhile."""

    def told() -> list[str]:
        return [text for text in caplog.messages if "clock is" in text]

    worker = Worker(queue, nothing, skip_stalled_check=True)
    async with worker:
        clock = queue.connection.clock
        for times, ahead in enumerate((-7200, 7200), 1):
            now = time.time()
            clock.learn(now, now, int(now) + ahead, 0)
            await until("a warning", lambda times=times: len(told()) == times)
            await asyncio.sleep(1.2)
            clock.learn(now, now, int(now), round(now % 1 * 1e6))
            await asyncio.sleep(1.2)
    assert ["behind" in told()[0], "ahead of" in told()[1]] == [True, True]
    assert len(told()) == 2
