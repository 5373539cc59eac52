"""What hurts a worker does not stop it: bad data, odd processors, cancellation, signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from tests.patience import Heard, like, until
from toril import (
    ConfigurationError,
    Connection,
    ConnectionLostError,
    Custom,
    DelayedError,
    Job,
    JobFailedError,
    LockLostError,
    Queue,
    ServerUnreachableError,
    Worker,
)
from toril._loops.heartbeat import Heartbeat
from toril._loops.patience import supervise
from toril.embedded import EmbeddedServer

PATIENCE = 15


@asynccontextmanager
async def within(what: str, seconds: float = PATIENCE) -> AsyncGenerator[None]:
    """A deadline that says what it waited for."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        pytest.fail(f"waited {seconds} s for {what}")


async def ended(job: Job[Any]) -> str:
    """Wait until a job has ended and return its return value or its failed reason."""
    async with within(f"the end of job {job.id}"):
        try:
            return str(await job.result())
        except JobFailedError as error:
            return f"failed: {error.failed_reason}"


async def test_an_error_text_that_is_no_utf8_fails_the_job(queue: Queue) -> None:
    """Half a surrogate pair in a message is replaced, and ends that share its call are reported."""

    async def process(job: Job) -> str:
        if job.name == "bad":
            raise ValueError("caf\udce9")
        return job.name

    bad = await queue.add("bad")
    good = [await queue.add(f"good{n}") for n in range(3)]
    async with Worker(queue, process, concurrency=4):
        assert await ended(bad) == "failed: caf?"
        assert [await ended(job) for job in good] == ["good0", "good1", "good2"]


async def test_stored_bytes_that_are_no_utf8_do_not_stop_a_worker(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A job that another program has spoilt does not hurt those that were fetched with it."""

    async def process(job: Job) -> Any:
        return job.data

    jobs = [await queue.add("any", {"n": n}) for n in range(4)]
    await client.hset(queue.keys.job(jobs[1].id), "data", b'{"n":"\xff"}')
    async with Worker(queue, process, concurrency=4):
        assert await ended(jobs[0]) == "{'n': 0}"
        assert await ended(jobs[1]) == "{'n': '\ufffd'}"
        assert await ended(jobs[3]) == "{'n': 3}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ats", "many"),
        ("atm", "-"),
        ("stc", "x"),
        ("opts", "[]"),
        ("opts", "{"),
        ("data", "{"),
        ("priority", "high"),
        ("timestamp", "now"),
        ("delay", "1e999"),
        ("stacktrace", "5"),
        ("processedOn", "NaN"),
    ],
)
async def test_spoilt_records_do_not_stop_a_worker(
    queue: Queue, client: redis.asyncio.Redis, field: str, value: str
) -> None:
    """Whatever stands in one job's record, that job ends and the others run."""

    async def process(job: Job) -> Any:
        _ = (job.data, job.attempts_made, job.stacktrace, job.priority, job.timestamp)
        if job.name == "bad":
            raise ValueError("bad")
        return job.name

    jobs = [await queue.add(name) for name in ("a", "spoilt", "bad", "b")]
    for job in jobs[1:3]:
        await client.hset(queue.keys.job(job.id), field, value)
    async with Worker(queue, process, concurrency=2):
        assert await ended(jobs[0]) == "a"
        assert await ended(jobs[3]) == "b"
        await ended(jobs[1])
        assert (await ended(jobs[2])).startswith("failed")


class Outcome(BaseException):
    """What test frameworks raise."""


@pytest.mark.parametrize("error", [Outcome("x"), BaseExceptionGroup("x", [Outcome("y")]), SystemExit(3)])
@pytest.mark.parametrize("is_async", [True, False])
async def test_any_exception_is_a_failed_attempt(queue: Queue, error: BaseException, is_async: bool) -> None:
    """No exception of a processor takes a slot, or the worker, with it."""

    async def process(job: Job) -> str:
        if job.name == "bad":
            raise error
        return job.name

    def process_in_thread(job: Job) -> str:
        if job.name == "bad":
            raise error
        return job.name

    bad, good = await queue.add("bad"), await queue.add("good")
    async with Worker(queue, process if is_async else process_in_thread):
        assert (await ended(bad)).startswith("failed: ")
        assert await ended(good) == "good"


@pytest.mark.parametrize(("error", "said"), [(KeyboardInterrupt(), ""), (SystemExit("enough"), ": enough")])
async def test_an_exception_without_a_text_is_named(queue: Queue, error: BaseException, said: str) -> None:
    """The reason is its type, and its text where it has one."""

    async def process(job: Job) -> None:
        raise error

    job = await queue.add("a")
    async with Worker(queue, process):
        assert await ended(job) == f"failed: the processor raised {type(error).__name__}{said}"


async def test_a_return_value_that_is_no_json_fails_the_job(queue: Queue) -> None:
    """It fails with a reason; the worker goes on."""

    async def process(job: Job) -> Any:
        return {"nan": float("nan"), "set": {1}, "ok": 1}[job.name]

    jobs = [await queue.add(name) for name in ("nan", "set", "ok")]
    async with Worker(queue, process):
        assert "NaN" in await ended(jobs[0])
        assert "set" in await ended(jobs[1])
        assert await ended(jobs[2]) == "1"


async def test_a_stopped_worker_hands_back_uncounted_whatever_the_processor_makes_of_it(queue: Queue) -> None:
    """A processor that turns its cancellation into another error has not failed an attempt."""
    started = asyncio.Event()

    async def process(job: Job) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("cleaning up went wrong") from None

    job = await queue.add("any", attempts=3)
    worker = Worker(queue, process, grace=0)
    async with worker, within("the start"):
        await started.wait()
    assert await queue.get_job_state(job.id) == "waiting"
    await job.refresh()
    assert job.attempts_made == 0


async def test_cancelling_run_hands_jobs_back(queue: Queue) -> None:
    """A worker whose task is cancelled leaves no processor running without a lock."""
    started, over = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            over.set()

    job = await queue.add("any")
    task = asyncio.create_task(Worker(queue, process).run(handle_signals=False))
    async with within("the start"):
        await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over.is_set()
    assert await queue.get_job_state(job.id) == "waiting"


@pytest.mark.parametrize("how", ["completed", "failed", "delayed"])
async def test_what_has_ended_when_run_is_cancelled_is_not_run_again(queue: Queue, how: str) -> None:
    """Its end is written before the worker goes, though there is no time for any grace."""

    async def process(job: Job) -> str:
        asyncio.get_running_loop().call_soon(task.cancel)
        if how != "completed":
            raise ValueError(how)
        return "done"

    job = await queue.add("any", attempts=2 if how == "delayed" else 1, backoff=60)
    task = asyncio.create_task(Worker(queue, process).run(handle_signals=False))
    async with within("the end of the run"):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await queue.get_job_state(job.id) == how
    await job.refresh()
    assert job.attempts_made == 1


def test_the_end_of_the_loop_is_not_held_up(server_url: str, prefix: str) -> None:
    """`asyncio.run` cancels all tasks, a worker's own among them; it waits for none that is gone."""

    async def process(job: Job) -> None:
        over.set()

    async def main() -> None:
        async with Queue("tests", connection=server_url, prefix=prefix) as queue:
            tasks.append(asyncio.create_task(Worker(queue, process).run(handle_signals=False)))
            await queue.add("any")
            async with within("the end of a job"):
                await over.wait()

    over, tasks = asyncio.Event(), list[asyncio.Task[None]]()
    began = time.monotonic()
    asyncio.run(main())
    assert tasks[0].cancelled()
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_a_job_whose_backoff_is_being_thought_about_gets_its_end(queue: Queue, how: str) -> None:
    """Who wants to take it away then is late: the attempt has failed."""
    thinking, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> None:
        raise ValueError("no")

    async def strategy(made: int, kind: str, error: BaseException, job: Job) -> float:
        thinking.set()
        await go_on.wait()
        return 60

    job = await queue.add("any", attempts=2, backoff=Custom("slow"))
    worker = Worker(queue, process, backoff_strategy=strategy)
    async with worker:
        async with within("the strategy"):
            await thinking.wait()
        if how == "cancelled":
            assert not worker.cancel_job(job.id)
        else:
            worker.stop(now=True)
        await asyncio.sleep(0)
        go_on.set()
        await until("the delay", job.is_delayed)
    await job.refresh()
    assert job.attempts_made == 1


async def test_the_heartbeat_outlives_what_a_new_client_meets(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong while it begins anew, locks are renewed, a moment later."""
    ask, renew = Heartbeat._ask, Heartbeat._renew_client
    met: list[str] = []

    def lost(self: Heartbeat, *args: Any) -> list[str]:
        if "lost" not in met:
            met.append("lost")
            raise redis.exceptions.ConnectionError("lost")
        return ask(self, *args)

    def broken(self: Heartbeat) -> None:
        if "broken" not in met:
            met.append("broken")
            raise OSError("broken")
        renew(self)

    async def process(job: Job) -> None:
        await heard.wait()

    monkeypatch.setattr(Heartbeat, "_ask", lost)
    monkeypatch.setattr(Heartbeat, "_renew_client", broken)
    job = await queue.add("any")
    worker = Worker(queue, process, lock_renew_time=0.05)
    heard = Heard(worker, "locks_renewed")
    async with worker:
        await ended(job)
    assert met == ["lost", "broken"]


async def test_a_listener_that_meets_a_cancelled_future_hurts_nobody(queue: Queue) -> None:
    """The worker itself is not cancelled by that, and goes on."""
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    jobs = await queue.add_bulk([("any", None)] * 6)
    worker = Worker(queue, str, concurrency=2)
    worker.on("completed", lambda job, value: cancelled.result())
    async with worker:
        for job in jobs:
            await ended(job)


async def test_what_is_cancelled_under_a_loop_does_not_end_it() -> None:
    """Only who cancels the loop itself does."""
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    awaits, told = [cancelled, asyncio.get_running_loop().create_future()], list[tuple[str, BaseException]]()

    async def loop() -> None:
        await awaits.pop(0)

    task = asyncio.create_task(supervise("tests", "a loop", loop, lambda *what: told.append(what)))
    await until("the second round", lambda: not awaits)
    assert [type(error) for _, error in told] == [asyncio.CancelledError]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_entering_a_worker_twice_is_refused_and_the_first_goes_on(queue: Queue) -> None:
    """Its end is waited for as ever."""
    worker = Worker(queue, str)
    async with worker:
        with pytest.raises(ConfigurationError, match="running already"):
            async with worker:
                pass
        assert await ended(await queue.add("any"))
    assert not worker.is_running


@pytest.mark.parametrize("raises", [ValueError("no"), DelayedError(60)])
@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_processor_that_takes_its_own_job_away_leaves_an_end(
    queue: Queue, how: str, raises: Exception
) -> None:
    """Also where it does not await any more, so that the cancellation comes only afterwards."""

    async def process(job: Job) -> None:
        if how == "cancel":
            worker.cancel_job(job.id)
        else:
            worker.stop(now=True)
        raise raises

    job = await queue.add("any", attempts=2, backoff=60)
    worker = Worker(queue, process)
    state = "waiting" if how == "stop" and isinstance(raises, ValueError) else "delayed"
    async with worker:

        async def has_ended() -> bool:
            return await queue.get_job_state(job.id) == state

        await until(f"it to be {state}", has_ended)


async def test_pausing_ends_with_the_worker(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a job whose end cannot be written waits no longer than the worker."""
    monkeypatch.setattr("toril.worker._LAST_WORDS", 0.2)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> None:
        started.set()
        await go_on.wait()

    with like(server) as own:
        async with Queue("tests", connection=own.url) as queue:
            await queue.add("any")
            worker = Worker(queue, process)
            async with worker:
                async with within("the start"):
                    await started.wait()
                pausing = asyncio.create_task(worker.pause())
                own.stop()
                go_on.set()
                await asyncio.sleep(0.05)
                assert not pausing.done()
                worker.stop(now=True)
            async with within("the end of the pause"):
                await pausing


async def test_a_job_that_moves_during_a_renewal_is_no_loss(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that the heartbeat does not find any more was given up, and nobody is alarmed."""
    asked, moved = threading.Event(), threading.Event()
    ask = Heartbeat._ask

    def late(self: Heartbeat, name: str, *args: Any) -> list[str]:
        if name == "extend_locks" and not asked.is_set():
            asked.set()
            moved.wait(PATIENCE)
        return ask(self, name, *args)

    async def process(job: Job) -> None:
        await until("the renewal", asked.is_set)
        raise ValueError("no")

    monkeypatch.setattr(Heartbeat, "_ask", late)
    job = await queue.add("any", attempts=2, backoff=60)
    worker = Worker(queue, process, lock_renew_time=0.05)
    heard = Heard(worker, "lock_renewal_failed", "lock_lost")
    async with worker:
        await until("the delay", job.is_delayed)
        (heartbeat,) = Heartbeat._of_loops[asyncio.get_running_loop()].values()
    moved.set()
    await asyncio.to_thread(heartbeat.join, PATIENCE)
    await asyncio.sleep(0)
    assert heard.told == []


async def test_a_mistake_in_the_settings_ends_the_start(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waiting does not mend is raised; a server that is down is waited for."""

    async def broken(self: Connection) -> None:
        raise ConfigurationError("no such server binary")

    monkeypatch.setattr(Connection, "learn_time", broken)
    with pytest.raises(ConfigurationError, match="binary"):
        await asyncio.wait_for(Worker(queue, print).run(handle_signals=False), 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_stops_all_workers_of_a_process(
    server_url: str, prefix: str, number: signal.Signals
) -> None:
    """Two workers on one event loop both hear it, and the process ends by itself."""
    program = """
        import asyncio, sys
        from toril import Queue, Worker

        async def process(job): ...

        async def main():
            workers = [Worker(name, process, connection=sys.argv[1], prefix=sys.argv[2]) for name in ("a", "b")]
            ready = [asyncio.Event() for _ in workers]
            for worker, event in zip(workers, ready):
                worker.on("ready", event.set)
            runs = [asyncio.create_task(worker.run()) for worker in workers]
            for event in ready:
                await event.wait()
            print("ready", flush=True)
            await asyncio.gather(*runs)
            print("both stopped", flush=True)

        asyncio.run(main())
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), server_url, prefix],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
        os.kill(child.pid, number)
        rest, _ = child.communicate(timeout=PATIENCE)
        assert rest.strip() == "both stopped"
        assert child.returncode == 0
    finally:
        child.kill()
        child.wait()


async def test_log_rows_of_any_text_and_any_limit(queue: Queue) -> None:
    """Rows that UTF-8 cannot hold are mended; a limit of 0 keeps none."""
    job = await queue.add("any", keep_logs=2)
    await job.log("caf\udce9")
    for n in range(3):
        await job.log(str(n))
    assert (await queue.get_job_logs(job.id)).logs == ["1", "2"]
    silent = await queue.add("any", keep_logs=0)
    assert await silent.log("x") == 0
    assert (await queue.get_job_logs(silent.id)).logs == []


async def test_many_calls_at_once_share_few_connections(queue: Queue, client: redis.asyncio.Redis) -> None:
    """A thousand concurrent questions do not open a thousand sockets."""
    job = await queue.add("any")
    before = int((await client.info("clients"))["connected_clients"])
    highest = before
    asking = True

    async def watch() -> None:
        nonlocal highest
        while asking:
            highest = max(highest, int((await client.info("clients"))["connected_clients"]))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    found = await asyncio.gather(*(queue.get_job(job.id) for _ in range(1000)))
    asking = False
    await watching
    assert all(one is not None and one.id == job.id for one in found)
    assert highest - before <= 64


async def test_a_cancelled_call_does_not_mix_up_answers(queue: Queue) -> None:
    """Whoever asks next gets the answer to his own question."""
    jobs = [await queue.add(f"name{n}", {"n": n}) for n in range(20)]
    for round_ in range(30):
        tasks = [asyncio.create_task(queue.get_job(job.id)) for job in jobs]
        for _ in range(round_ % 6):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Job):
                assert answer.name == job.name
            else:
                assert isinstance(answer, asyncio.CancelledError)


async def test_adding_works_after_a_cancelled_add(queue: Queue) -> None:
    """Cancelling one caller neither cancels the others in its batch, nor loses their jobs."""
    tasks = [asyncio.create_task(queue.add(f"n{n}")) for n in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    ids = {job.id for job in results if isinstance(job, Job)}
    assert len(ids) == 49
    assert json.dumps(sorted(ids))
    await queue.add("later")
    assert len(await queue.get_ids("waiting")) in (50, 51)


async def test_a_queue_whose_locks_cannot_be_renewed_costs_no_other_queue_its_locks(
    server_url: str, prefix: str, client: redis.asyncio.Redis
) -> None:
    """Workers of one event loop share a heartbeat, and what the server refuses for one queue is that queue's alone."""
    async with Connection(server_url) as connection:
        spoilt = Queue("spoilt", connection=connection, prefix=prefix)
        sound = Queue("sound", connection=connection, prefix=prefix)
        renewed, lost = asyncio.Queue[str](), asyncio.Event()
        end = asyncio.Event()

        async def process(job: Job) -> None:
            await end.wait()

        def worker(queue: Queue) -> Worker:
            return Worker(queue, process, lock_duration=2, lock_renew_time=0.1, skip_stalled_check=True)

        async with worker(spoilt) as first, worker(sound) as second:
            first.on("lock_renewal_failed", lambda _: lost.set())
            second.on("locks_renewed", lambda ids: renewed.put_nowait(ids[0]))
            await client.set(spoilt.keys.key("stalled"), "not a set")
            await spoilt.add("a")
            job = await sound.add("a")
            async with within("renewals"):
                for _ in range(3):
                    assert await renewed.get() == job.id
            assert not lost.is_set()
            await client.delete(spoilt.keys.key("stalled"))
            end.set()
            assert await ended(job) == "None"


async def test_a_job_that_its_own_worker_fetches_anew_runs_once_at_a_time(queue: Queue) -> None:
    """The first run, whose lock ran out unnoticed, is cancelled; the second one's end counts; slots stay right."""
    runs: list[str] = []
    together = most = 0

    async def process(job: Job) -> str:
        nonlocal together, most
        together += 1
        most = max(most, together)
        try:
            if job.name == "slow" and job.attempts_started == 1:
                await asyncio.sleep(60)
            await asyncio.sleep(0.01)
            runs.append(f"{job.name} {job.attempts_started}")
            return f"run {job.attempts_started}"
        except asyncio.CancelledError:
            runs.append(f"{job.name} {job.attempts_started} cancelled")
            raise
        finally:
            together -= 1

    slow = await queue.add("slow")
    worker = Worker(
        queue,
        process,
        concurrency=2,
        lock_duration=0.2,
        stalled_interval=0.2,
        max_stalled_count=5,
        skip_lock_renewal=True,
    )
    async with worker:
        assert await ended(slow) == "run 2"
        assert runs == ["slow 1 cancelled", "slow 2"]
        most = 0
        quick = [await queue.add("quick") for _ in range(10)]
        for job in quick:
            assert await ended(job) == "run 1"
    assert most <= 2


async def test_a_lock_that_is_lost_cancels_the_run_and_its_writes(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """Whoever has lost the lock is told by cancellation, and what he still writes is refused."""
    started, refused = asyncio.Event(), asyncio.Event()

    async def process(job: Job) -> str:
        if job.name != "lost":
            return "other"
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            for write in (job.update_progress(1), job.log("x"), job.update_data({"x": 1})):
                with pytest.raises(LockLostError):
                    await write
            refused.set()
        return "too late"

    lost = await queue.add("lost")
    async with Worker(queue, process, lock_duration=1, skip_stalled_check=True) as worker:
        told = asyncio.Event()
        worker.on("lock_lost", lambda job: told.set())
        async with within("the loss of the lock"):
            await started.wait()
            await client.set(queue.keys.job(lost.id) + ":lock", "somebody else")
            await refused.wait()
            await told.wait()
        other = await queue.add("other")
        assert await ended(other) == "other"
        assert await queue.get_job_state(lost.id) == "active"
        await lost.refresh()
        assert lost.progress == 0
        assert lost.data == {}


async def test_no_job_is_lost_or_doubled_by_broken_connections(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """Connections break at any moment, and still each attempt runs once and each job completes."""
    count = 600
    runs: Counter[str] = Counter()
    chance = random.Random(7)

    async def process(job: Job) -> int:
        runs[job.id] += 1
        await asyncio.sleep(chance.random() * 0.01)
        if job.data["fails"] and job.attempts_made == 0:
            raise ValueError("the first attempt fails")
        return runs[job.id]

    async def break_connections() -> None:
        own = await client.client_id()
        # Ended by a word: before Python 3.12 the client of this test may swallow a cancellation.
        while not is_over.is_set():
            for row in await client.client_list():
                if row["id"] != str(own) and chance.random() < 0.3:
                    with contextlib.suppress(redis.asyncio.RedisError):
                        await client.client_kill_filter(_id=row["id"])
            await asyncio.sleep(0.03)

    async def add(n: int) -> None:
        while True:
            try:
                await queue.add(
                    "any",
                    {"fails": n % 5 == 0},
                    job_id=f"job-{n}",
                    attempts=5,
                    priority=n % 3,
                    delay=0.1 if n % 7 == 0 else 0,
                    backoff=0.05 if n % 2 else 0,
                )
                return
            except ConnectionLostError:
                await asyncio.sleep(0.01)

    is_over = asyncio.Event()
    done: set[str] = set()
    workers = [Worker(queue, process, concurrency=concurrency) for concurrency in (20, 3)]
    for worker in workers:
        worker.on("completed", lambda job, _: done.add(job.id))
    breaking = asyncio.create_task(break_connections())
    async with workers[0], workers[1]:
        async with within("all jobs to be added", 60):
            await asyncio.gather(*map(add, range(count)))
        async with within("all jobs to complete", 60):
            while len(done) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        is_over.set()
        async with within("the last connection to break"):
            await breaking
    await queue.connection.close()
    jobs = await queue.get_completed()
    assert {job.id: job.attempts_made for job in jobs} == dict(runs)
    assert all(job.attempts_made == (2 if job.data["fails"] else 1) for job in jobs)


async def test_a_reason_that_is_no_utf8_fails_a_job_that_was_fetched_by_hand(queue: Queue) -> None:
    """As it does in a worker that runs: half a surrogate pair is replaced."""
    await queue.add("a")
    job = await Worker(queue, print).get_next_job()
    assert job is not None
    await job.move_to_failed("caf\udce9")
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, job.stacktrace) == ("failed", "caf?", ["caf?"])


async def test_a_move_that_was_never_heard_is_not_taken_for_made(
    queue: Queue, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server could not be reached, and meanwhile another worker has the job: this one has lost it."""
    job = await queue.add("a", attempts=2)
    real, tries = queue.scripts.retry_job, 0

    async def unreachable_at_first(*args: Any, **kwargs: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            await client.set(queue.keys.job(job.id) + ":lock", "another worker's")
            raise ServerUnreachableError("away for longer than the lock")
        await real(*args, **kwargs)

    async def process(_: Job) -> None:
        raise ValueError("boom")

    monkeypatch.setattr(queue.scripts, "retry_job", unreachable_at_first)
    worker = Worker(queue, process)
    told = Heard(worker, "retried", "lock_lost")
    async with worker:
        ((name, *_),) = await told.wait()
    assert name == "lock_lost"
