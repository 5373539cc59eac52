"""`toril why`: why a job does not run, in one line, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from toril import Connection, Dependencies, Job, Queue
from toril.cli.common import PROBLEM, Json, Prefix, QueueName, Url, run
from toril.cli.output import ago, console, moment, print_json, printable

__all__ = ["why"]

# How many children are looked at.
_MOST_CHILDREN = 100


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a job stands where it stands.

    Attributes:
        state: Where that is.
        why: One line.
        remedy: What somebody has to do; None where time or a worker will see to it.
    """

    state: str
    why: str
    remedy: str | None = None


def why(
    queue: QueueName,
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The id of the job.")],
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Say why a job does not run, and what would mend it. Exits with 1 if somebody has to do something."""

    async def ask() -> Reason:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            await opened.connection.learn_time()
            return await _reason(opened, await opened.get_job_or_raise(job_id))

    reason = run(ask(), as_json=as_json)
    if as_json:
        print_json({"id": job_id, "state": reason.state, "why": reason.why, "remedy": reason.remedy})
    else:
        remedy = f"; {reason.remedy}" if reason.remedy else ""
        line = f"job {job_id!r} is {reason.state}: {reason.why}{remedy}"
        console().print(printable(line), markup=False)
    if reason.remedy is not None:
        raise typer.Exit(PROBLEM)


async def _reason(queue: Queue, job: Job[Any]) -> Reason:
    state = await job.get_state()
    match state:
        case "completed":
            return Reason(state, f"it ended at {moment(job.finished_on)}")
        case "failed":
            tries = f"{job.attempts_made} of {max(1, job.options.attempts)} attempts"
            show, retry = (queue.keys.command(verb, job.id) for verb in ("job show", "job retry"))
            remedy = f"see `{show}`, then `{retry}`"
            return Reason(state, f"it failed for good at {moment(job.finished_on)}, after {tries}", remedy)
        case "active":
            return await _active(queue, job)
        case "delayed":
            return await _delayed(queue, job)
        case "waiting-children":
            return await _waiting_for_children(job)
        case "waiting" | "prioritized":
            return await _in_line(queue, job, state)
        case _:
            return Reason(state, "it is in no list, as a crash of another client may leave it",
                          "add it again, or let `Queue.remove_orphaned_jobs` remove it")  # fmt: skip


async def _active(queue: Queue, job: Job[Any]) -> Reason:
    by = f" by worker {job.processed_by!r}" if job.processed_by else ""
    since = f"it has been running{by} for {ago(job.processed_on, queue.clock.now_ms())}"
    if await queue.connection.execute("EXISTS", queue.keys.job(job.id) + ":lock"):
        return Reason("active", since)
    if await queue.get_workers_count():
        return Reason("active", f"{since}, but that worker is silent; another will take it back")
    return Reason("active", f"{since}, but that worker is silent, and there is no other", "start a worker")


async def _delayed(queue: Queue, job: Job[Any]) -> Reason:
    score = await queue.connection.execute("ZSCORE", queue.keys.key("delayed"), job.id)
    # The score holds the due time above twelve bits that keep the order of equal ones.
    due_ms = int(float(score or 0)) // 4096
    what = f"attempt {job.attempts_made + 1} is due" if job.attempts_made else "it is due"
    if due_ms > queue.clock.now_ms():
        return Reason("delayed", f"{what} at {moment(due_ms)}")
    blocked = await _what_blocks(queue)
    why, remedy = blocked or ("the next worker that looks will fetch it", None)
    return Reason("delayed", f"{what} since {moment(due_ms)}, but {why}", remedy)


async def _in_line(queue: Queue, job: Job[Any], state: str) -> Reason:
    blocked = await _what_blocks(queue)
    if blocked is not None:
        return Reason(state, *blocked)
    execute = queue.connection.execute
    if state == "waiting":
        before = await execute("LPOS", queue.keys.key("wait"), job.id, "RANK", -1)
        before = 0 if before is None else await execute("LLEN", queue.keys.key("wait")) - before - 1
    else:
        before = await execute("LLEN", queue.keys.key("wait"))
        before += await execute("ZRANK", queue.keys.key("prioritized"), job.id) or 0
    workers = await queue.get_workers_count()
    return Reason(state, f"{before} jobs are before it, and {workers} connections of workers are there")


async def _what_blocks(queue: Queue) -> tuple[str, str | None] | None:
    """Why no job of the queue is fetched now, and the remedy; None if nothing stands in the way."""
    if await queue.is_paused():
        return "the queue is paused", f"`{queue.keys.command('queue resume')}`"
    if not await queue.get_workers_count():
        return "the queue has no worker", "start one: `toril worker`"
    if await queue.is_maxed():
        most = await queue.get_global_concurrency()
        return f"as many jobs run as the global concurrency of {most} allows", None
    limit = await queue.get_global_rate_limit()
    closed_for = await queue.get_rate_limit_ttl(limit and limit[0])
    if closed_for:
        return f"the rate limit closes the queue for another {closed_for:g} s", None
    return None


async def _waiting_for_children(job: Job[Any]) -> Reason:
    known: Dependencies = await job.get_dependencies()
    waits_for = len(known.unprocessed)
    for key in known.unprocessed[:_MOST_CHILDREN]:
        state = await _state_of(job.queue.connection, key)
        if state == "failed":
            return Reason("waiting-children", f"its child {key!r} has failed, and says nothing of its parent",
                          "retry the child, remove it, or cut it off")  # fmt: skip
        if state == "unknown":
            return Reason(
                "waiting-children", f"its child {key!r} is gone", "add the child again, or remove this job"
            )
    first = f", {known.unprocessed[0]!r} among them" if known.unprocessed else ""
    return Reason("waiting-children", f"{waits_for} of its children have not ended{first}")


async def _state_of(connection: Connection, key: str) -> str:
    where, _, job_id = key.rpartition(":")
    prefix, _, name = where.rpartition(":")
    return await Queue(name, connection=connection, prefix=prefix).get_job_state(job_id)
