"""`toril why`: each reason for which a job does not run."""

from __future__ import annotations

import asyncio

from tests.patience import Heard, ended, within
from toril import FlowJob, FlowProducer, Job, Queue, Worker

from .conftest import Answer, Toril, in_thread


async def work(job: Job) -> None:
    if job.name == "fails":
        raise ValueError("boom")


async def ask(toril: Toril, job: Job) -> Answer:
    return await in_thread(toril, "why", job.queue.name, job.id)


async def test_a_queue_that_stands_still(toril: Toril, queue: Queue) -> None:
    """Without a worker, and paused; each with its remedy, and exit code 1."""
    job = await queue.add("a")
    answer = await ask(toril, job)
    assert (answer.code, answer.out) == (
        1, f"job '{job.id}' is waiting: the queue has no worker; start one: `toril worker`\n"
    )  # fmt: skip
    await queue.pause()
    answer = await ask(toril, job)
    assert (answer.code, f"`toril queue resume tests --prefix {queue.prefix}`" in answer.out) == (1, True)
    told = (await in_thread(toril, "why", queue.name, job.id, "--json")).json
    assert (told["state"], told["why"]) == ("waiting", "the queue is paused")
    assert (await in_thread(toril, "why", queue.name, "nobody")).code == 1


async def test_a_queue_that_is_busy_or_limited(toril: Toril, queue: Queue) -> None:
    """Time will see to it: exit code 0."""
    go_on = asyncio.Event()

    async def wait(job: Job) -> None:
        await go_on.wait()

    worker = Worker(queue, wait, name="slow")
    heard = Heard(worker, "active")
    running, first, second = await queue.add_bulk([("a", None)] * 3)
    urgent = await queue.add("a", priority=1)
    async with worker:
        await heard.wait()
        assert "running by worker 'slow' for 0s" in (await ask(toril, running)).out
        assert "0 jobs are before it" in (await ask(toril, first)).out
        assert "1 jobs are before it" in (await ask(toril, second)).out
        answer = await ask(toril, urgent)
        assert (answer.code, "is prioritized: 2 jobs are before it" in answer.out) == (0, True)
        await queue.set_global_concurrency(1)
        assert "global concurrency of 1" in (await ask(toril, first)).out
        await queue.remove_global_concurrency()
        await queue.rate_limit(60)
        assert "rate limit closes the queue for another" in (await ask(toril, first)).out
        await queue.remove_rate_limit_key()
        go_on.set()
        await ended(running, first, second, urgent)
    assert "it ended at" in (await ask(toril, first)).out


async def test_a_job_that_waits_for_its_time(toril: Toril, queue: Queue) -> None:
    """Its own, or that of its next attempt; or it is due, and nobody is there."""
    later = await queue.add("later", delay=3600)
    assert "is delayed: it is due at" in (await ask(toril, later)).out
    retried = await queue.add("fails", attempts=2, backoff=3600)
    worker = Worker(queue, work)
    heard = Heard(worker, "retried")
    async with worker:
        await heard.wait()
    assert "attempt 2 is due at" in (await ask(toril, retried)).out
    due = await queue.add("due", delay=0.001)
    async with within("its time"):
        while "since" not in (answer := await ask(toril, due)).out:
            pass
    assert (answer.code, "no worker" in answer.out) == (1, True)


async def test_a_job_that_has_failed_or_lost_its_worker(toril: Toril, queue: Queue) -> None:
    """What to do about it."""
    failed = await queue.add("fails")
    async with Worker(queue, work):
        await ended(failed)
    answer = await ask(toril, failed)
    assert (answer.code, "after 1 of 1 attempts; see `toril job show" in answer.out) == (1, True)
    assert f"then `toril job retry tests {failed.id} --prefix {queue.prefix}`" in answer.out
    lost = await queue.add("a")
    assert await Worker(queue, work).get_next_job() is not None
    await queue.connection.execute("DEL", queue.keys.job(lost.id) + ":lock")
    answer = await ask(toril, lost)
    assert (answer.code, "that worker is silent, and there is no other" in answer.out) == (1, True)


async def test_a_parent_that_waits(toril: Toril, queue: Queue) -> None:
    """For children that have yet to end, or for one that failed and says nothing of its parent."""
    async with FlowProducer(connection=queue.connection, prefix=queue.prefix) as flows:
        flow = await flows.add(FlowJob("p", "tests", children=[FlowJob("fails", "tests")]))
    answer = await ask(toril, flow.job)
    assert (answer.code, "1 of its children have not ended" in answer.out) == (0, True)
    async with Worker(queue, work):
        await ended(flow.children[0].job)
    answer = await ask(toril, flow.job)
    assert (answer.code, "has failed, and says nothing of its parent; retry the child" in answer.out) == (
        1,
        True,
    )
