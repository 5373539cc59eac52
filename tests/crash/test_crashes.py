"""Workers that are killed, servers that restart: every job reaches its end, and none is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import like, until
from toril import ConnectionLostError, Job, Queue, ServerRefusedError, Worker
from toril.embedded import EmbeddedServer

PROGRAM = Path(__file__).with_name("program.py")


class Workers:
    """Worker processes, and the ledger that they share."""

    def __init__(self, url: str, prefix: str, ledger: Path) -> None:
        self._command = [sys.executable, str(PROGRAM), url, prefix, str(ledger)]
        self._ledger = ledger
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        self.running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.running.remove(process)

    def lines(self, word: str) -> list[str]:
        text = self._ledger.read_text() if self._ledger.exists() else ""
        return [line.split()[1] for line in text.splitlines() if line.startswith(word + " ")]

    def is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        return str(process.pid) in self.lines("ready")


@pytest.fixture
def workers(server_url: str, prefix: str, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(server_url, prefix, tmp_path / "ledger")
    yield workers
    for process in list(workers.running):
        workers.kill(process)


async def test_no_job_is_lost_when_workers_are_killed(queue: Queue, workers: Workers) -> None:
    """Two workers, one of them killed again and again at random moments: all jobs complete, few run twice."""
    chance = random.Random(20261124)
    jobs = await queue.add_bulk(("n", 0.02) for _ in range(400))
    steady, victim = workers.start(), workers.start()
    await until("both workers", lambda: workers.is_ready(steady) and workers.is_ready(victim))
    kills = 0
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        workers.kill(victim)
        kills += 1
        victim = workers.start()
        await until("the next worker", lambda process=victim: workers.is_ready(process))

    await until("the end of all jobs", lambda: all_ended(queue, len(jobs)), seconds=30)

    counts = await queue.get_job_counts()
    assert counts["completed"] == len(jobs)
    assert sum(counts.values()) == len(jobs)
    ends = Counter(workers.lines("end"))
    assert set(ends) == {job.id for job in jobs}
    # Only what a killed worker held can run again: five at most a kill, and what was fetched on its way.
    assert sum(count - 1 for count in Counter(workers.lines("start")).values()) <= 10 * kills
    stored = await queue.get_completed()
    assert all(job.return_value == "done" and job.attempts_made == 1 for job in stored)
    client = queue.connection.client
    assert [key async for key in client.scan_iter(match=f"{queue.keys.base}*:lock")] == []


async def all_ended(queue: Queue, count: int) -> bool:
    counts = await queue.get_job_counts("completed", "failed")
    return sum(counts.values()) >= count


async def test_a_killed_workers_job_is_run_by_another(queue: Queue, workers: Workers) -> None:
    """After the lock has run out; counted as stalled, not as an attempt."""
    job = await queue.add("long", 1, attempts=1)
    victim = workers.start()
    await until("the start", lambda: job.id in workers.lines("start"))
    workers.kill(victim)
    workers.start()

    assert await job.result(timeout=20) == "done"
    await job.refresh()
    assert (job.stalled_counter, job.attempts_made, job.attempts_started) == (1, 1, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_worker_in_good_order(
    queue: Queue, workers: Workers, number: signal.Signals
) -> None:
    """What ends within the grace has ended; the rest is handed back, first in line and uncounted."""
    short, long = await queue.add("short", 0.1), await queue.add("long", 60)
    worker = workers.start()
    await until("both starts", lambda: len(workers.lines("start")) == 2)
    later = await queue.add("later", 60, delay=60)
    os.kill(worker.pid, number)

    assert await asyncio.to_thread(worker.wait, 30) == 0
    assert workers.lines("stopped") == [str(worker.pid)]
    assert [await job.get_state() for job in (short, long, later)] == ["completed", "waiting", "delayed"]
    await long.refresh()
    assert (long.attempts_made, long.stalled_counter) == (0, 0)


async def test_a_second_signal_ends_the_grace(server_url: str, queue: Queue, tmp_path: Path) -> None:
    """With a grace of a minute, the second SIGTERM ends the worker at once; its job is handed back."""
    job = await queue.add("long", 60)
    patient = tmp_path / "patient.py"
    patient.write_text(PROGRAM.read_text().replace("grace=0.3", "grace=60"))
    ledger = tmp_path / "ledger"
    worker = subprocess.Popen([sys.executable, str(patient), server_url, queue.prefix, str(ledger)])
    try:
        await until("the start", lambda: ledger.exists() and "start" in ledger.read_text())
        worker.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        # Half its grace: a machine may be slow, but not that slow.
        assert await asyncio.to_thread(worker.wait, 30) == 0
    finally:
        worker.kill()
        worker.wait()
    assert await job.get_state() == "waiting"


async def test_no_job_is_lost_when_the_server_restarts(server: EmbeddedServer) -> None:
    """With an append-only file the server is killed twice under load: each add that returned counts."""
    with like(server, "aof", appendfsync="always") as own:
        ran: list[str] = []

        async def process(job: Job) -> None:
            await asyncio.sleep(0.002)
            ran.append(job.id)

        async with Queue("q", connection=own.url) as queue:
            added: set[str] = set()
            is_over = False

            async def produce() -> None:
                number = 0
                while not is_over:
                    number += 1
                    while True:
                        try:
                            # The same id until it is known to stand there.
                            added.add((await queue.add("n", number, job_id=f"job-{number}")).id)
                            break
                        except (ConnectionLostError, ServerRefusedError):
                            # Gone, or back and still loading its data.
                            await asyncio.sleep(0.02)
                    await asyncio.sleep(0.001)

            options = {"concurrency": 10, "lock_duration": 2, "stalled_interval": 0.5}
            async with Worker(queue, process, **options):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                producing = asyncio.create_task(produce())
                for _ in range(2):
                    before = len(added)
                    await until("some adds", lambda known=before: len(added) > known + 50)
                    await asyncio.to_thread(own.kill)
                    await asyncio.to_thread(own.start)
                before = len(added)
                await until("adds after the restart", lambda known=before: len(added) > known + 50)
                is_over = True
                await producing
                await until("the end of all", lambda: all_ended(queue, len(added)), seconds=20)
            assert set(await queue.get_ids("completed")) == added
            assert set(ran) == added
            # At least once; more only for what was on its way at a kill.
            assert len(ran) - len(added) <= 40


async def test_a_poison_pill_takes_nobody_with_it(queue: Queue, server_url: str, prefix: str) -> None:
    """Two jobs that kill their worker, 20 at a time, taken back once at most: they fail, and nobody else does."""
    names = ["pill" if number in (5, 6) else "good" for number in range(40)]
    jobs = await queue.add_bulk((name, number) for number, name in enumerate(names))
    command = [sys.executable, str(PROGRAM.with_name("pills.py")), server_url, prefix]
    workers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:

        async def are_over() -> bool:
            for number, worker in enumerate(workers):
                if worker.poll() is not None:
                    workers[number] = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            return await all_ended(queue, len(jobs))

        await until("the end of all jobs", are_over, seconds=60)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    failed = await queue.get_jobs("failed")
    assert sorted(job.name for job in failed) == ["pill"] * 2
    assert {job.failed_reason for job in failed} == {"job stalled more than allowable limit"}
    assert await queue.get_completed_count() == 38
