"""Workers that were cut off, or held up, for longer than their locks last: what nobody has taken is still theirs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import pytest
import redis.asyncio

from tests.model.proxy import Proxy
from tests.patience import Heard, ended, like, until, within
from toril import Job, Queue, ServerUnreachableError, UnrecoverableError, Worker
from toril._loops.stalled import look_for_stalled
from toril.embedded import EmbeddedServer
from toril.scripts import Scripts, Start

Client = redis.asyncio.Redis


async def test_the_heartbeat_takes_a_lock_again_that_ran_out(queue: Queue, client: Client) -> None:
    """The run goes on, and is the only one."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> int:
        started.set()
        await go_on.wait()
        return job.attempts_started

    job = await queue.add("a")
    lock = queue.keys.job(job.id) + ":lock"
    worker = Worker(queue, process, lock_duration=60, lock_renew_time=0.1, skip_stalled_check=True)
    heard = Heard(worker, "lock_lost", "completed")
    async with worker:
        async with within("the start"):
            await started.wait()
        await client.delete(lock)
        await until("the lock to be there again", lambda: client.exists(lock))
        go_on.set()
        await heard.wait()
    assert [told[0] for told in heard.told] == ["completed"]
    assert await client.exists(lock) == 0


@pytest.mark.parametrize("how", ["completed", "failed", "retried", "delayed", "given back"])
async def test_an_end_is_taken_though_the_lock_had_run_out(queue: Queue, client: Client, how: str) -> None:
    """However a run ends, and whatever it writes on its way, it counts."""

    async def process(job: Job) -> str:
        await client.delete(queue.keys.job(job.id) + ":lock")
        if job.attempts_started > 1:
            return "again"
        if how == "failed":
            raise UnrecoverableError("no")
        if how == "given back":
            worker.stop(now=True)
            await asyncio.sleep(60)
        if how != "completed":
            raise ValueError("once more")
        await job.update_progress(50)
        await client.delete(queue.keys.job(job.id) + ":lock")
        await job.log("half of it")
        await client.delete(queue.keys.job(job.id) + ":lock")
        return "done"

    job = await queue.add("a", attempts=3, backoff=0.01 if how == "delayed" else 0)
    worker = Worker(queue, process, skip_lock_renewal=True, skip_stalled_check=True)
    lost = Heard(worker, "lock_lost")
    async with worker:
        if how == "given back":
            await until("the job to wait again", job.is_waiting)
        else:
            (answer,) = await ended(job)
            assert str(getattr(answer, "failed_reason", answer)) == {"completed": "done", "failed": "no"}.get(
                how, "again"
            )
    await job.refresh()
    assert lost.told == []
    assert job.stalled_counter == 0
    assert job.attempts_started == (2 if how in ("retried", "delayed") else 1)
    assert job.progress == (50 if how == "completed" else 0)


async def test_an_end_that_was_never_heard_is_not_taken_for_heard(
    server: EmbeddedServer, queue: Queue, client: Client
) -> None:
    """The call that carried it is lost on its way, and when it is sent again the lock has run out."""
    job = await queue.add("a")
    proxy = Proxy("127.0.0.1", server.port)
    url = f"redis://127.0.0.1:{await proxy.start()}"

    async def process(job: Job) -> str:
        await client.delete(queue.keys.job(job.id) + ":lock")
        proxy.loses = "question"
        return "done"

    try:
        async with (
            Queue(queue.name, connection=url, prefix=queue.prefix) as through,
            Worker(through, process, skip_lock_renewal=True, skip_stalled_check=True),
        ):
            assert await ended(job) == ["done"]
    finally:
        await proxy.stop()
    assert proxy.losses == 1
    await job.refresh()
    assert job.attempts_started == 1


async def test_a_fault_while_locks_are_taken_again_costs_no_other_job_anything(
    queue: Queue, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came with the answer that said so is run, and the end is sent once more."""
    reclaim, faults = Scripts.reclaim_locks, [ServerUnreachableError("redis://localhost: away")]

    async def reclaim_locks(self: Scripts, lock_ms: int, starts: Sequence[Start]) -> list[str]:
        if faults:
            raise faults.pop()
        return await reclaim(self, lock_ms, starts)

    async def process(job: Job) -> str:
        if job.id == jobs[0].id:
            await client.delete(queue.keys.job(job.id) + ":lock")
        return "done"

    jobs = await queue.add_bulk([("a", None)] * 2)
    monkeypatch.setattr(Scripts, "reclaim_locks", reclaim_locks)
    async with Worker(queue, process, skip_lock_renewal=True, skip_stalled_check=True):
        assert await ended(*jobs) == ["done", "done"]
    assert not faults
    for job in jobs:
        await job.refresh()
        assert job.attempts_started == 1


async def test_jobs_outlive_outages_that_are_longer_than_their_locks(server: EmbeddedServer) -> None:
    """A server that stands still again and again, longer than a lock lasts, costs no job a run or a stall."""
    runs: Counter[str] = Counter()
    over = asyncio.Event()

    async def process(job: Job) -> None:
        runs[job.id] += 1
        await over.wait()

    with like(server) as own:
        async with Queue("tests", connection=own.url) as queue:
            jobs = await queue.add_bulk([("a", None)] * 6)
            workers = [
                Worker(queue, process, concurrency=3, lock_duration=0.8, stalled_interval=0.3)
                for _ in range(2)
            ]
            async with workers[0], workers[1]:
                await until("all to begin", lambda: runs.total() == 6)
                for _ in range(2):
                    await stand_still(own, 1.6)
                    await until("locks", lambda: all_are_locked(queue, jobs))
                over.set()
                await ended(*jobs)
            for job in jobs:
                await job.refresh()
            assert [job.stalled_counter for job in jobs] == [0] * 6
    assert set(runs.values()) == {1}


async def stand_still(server: EmbeddedServer, seconds: float) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)  # the outage itself
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_a_worker_that_is_stopped_as_it_starts_does_not_ask_a_silent_server_again(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the connection that it was opening, and for no other."""
    monkeypatch.setattr("toril.connection._CONNECT_TIMEOUT", 0.5)
    with like(server) as own:
        worker = Worker("tests", print, connection=own.url)
        os.kill(own.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            run = asyncio.create_task(worker.run(handle_signals=False))
            await asyncio.sleep(0)
            worker.stop()
            async with within("the end"):
                await run
            assert time.monotonic() - began < 1.4
        finally:
            os.kill(own.pid, signal.SIGCONT)


async def test_a_first_add_that_did_not_get_to_adding_says_so(server: EmbeddedServer, prefix: str) -> None:
    """The answer that was lost is the server's time, and nothing was added."""
    proxy = Proxy("127.0.0.1", server.port)
    url = f"redis://127.0.0.1:{await proxy.start()}"
    try:
        async with Queue("tests", connection=url, prefix=prefix) as queue:
            await queue.connection.execute("PING")
            proxy.loses = "answer"
            with pytest.raises(ServerUnreachableError):
                await queue.add("a")
            assert await queue.get_job_counts("waiting") == {"waiting": 0}
            await queue.add("a")
    finally:
        await proxy.stop()
    assert proxy.losses == 1


async def all_are_locked(queue: Queue, jobs: list[Job]) -> bool:
    locks = [queue.keys.job(job.id) + ":lock" for job in jobs]
    return bool(await queue.connection.execute("EXISTS", *locks) == len(jobs))


@pytest.mark.parametrize("what", ["an error", "a slow answer", "a blocked loop"])
async def test_nobody_is_judged_in_the_first_moment_after_an_outage(queue: Queue, what: str) -> None:
    """The check that is due waits until the others have had time to take their locks again."""
    settings = Worker(queue, str, lock_duration=1, stalled_interval=0.05)._settings
    at: list[tuple[str, float]] = []

    async def ping() -> None:
        pings = sum(name == "ping" for name, _ in at)
        at.append(("ping", time.monotonic()))
        if pings == 1 and what == "an error":
            raise ServerUnreachableError("redis://localhost: away")
        if pings == 1 and what == "a slow answer":
            await asyncio.sleep(0.6)

    async def check() -> None:
        checks = sum(name == "check" for name, _ in at)
        at.append(("check", time.monotonic()))
        if checks == 0 and what == "a blocked loop":
            asyncio.get_running_loop().call_later(0.02, time.sleep, 0.7)
        if checks == 1:
            raise StopAsyncIteration

    with suppress(StopAsyncIteration):
        async with within("two checks"):
            await look_for_stalled("tests", settings, ping, check)
    names = [name for name, _ in at]
    assert names[:2] == ["ping", "check"]
    assert names[-3:] == ["ping", "ping", "check"]
    assert at[-1][1] - at[-3][1] >= 0.5, "half a lock"
