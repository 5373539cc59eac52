"""`toril cron`: the job schedulers of a queue."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer

from toril import Job, JobScheduler, Queue
from toril.cli.common import PROBLEM, Json, Prefix, QueueName, Reveal, Url, Yes, complain, confirm, run
from toril.cli.output import console, moment, print_json, printable, redacted, table

__all__ = ["app"]

app = typer.Typer(help="Job schedulers: what makes jobs again and again.", no_args_is_help=True)

SchedulerId = Annotated[str, typer.Argument(metavar="SCHEDULER", help="The id of the job scheduler.")]


@app.command("ls")
def list_schedulers(
    queue: QueueName, url: Url = None, prefix: Prefix = "bull", as_json: Json = False
) -> None:
    """List the job schedulers of a queue, the next to run first."""

    async def read() -> list[JobScheduler]:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            return await opened.get_job_schedulers(ascending=True)

    found = run(read(), as_json=as_json)
    if as_json:
        print_json([_facts(scheduler) for scheduler in found])
    elif found:
        rows = [[one.id, one.name, _when(one), moment(one.next_ms), one.iterations] for one in found]
        table(["id", "name", "when", "next run", "runs"], rows, right=["runs"])
    else:
        console().print(f"No job schedulers in queue {queue!r}.", markup=False)


@app.command("show")
def show_scheduler(
    queue: QueueName,
    scheduler_id: SchedulerId,
    reveal: Reveal = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Show one job scheduler, with the data and options of its jobs."""

    async def read() -> JobScheduler | None:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            return await opened.get_job_scheduler(scheduler_id)

    scheduler = run(read(), as_json=as_json)
    if scheduler is None:
        _no_such(queue, scheduler_id, as_json=as_json)
    shown: dict[str, Any] = {
        **_facts(scheduler),
        "data": scheduler.data if reveal else redacted(scheduler.data),
        "options": dict(scheduler.options or {}),
    }
    if as_json:
        print_json(shown)
        return
    for key, value in shown.items():
        if value is not None:
            text = moment(value) if key in ("next_ms", "start_ms", "end_ms") else str(value)
            console().print(f"{key:10} {printable(text)}", markup=False)


@app.command("run")
def run_scheduler(
    queue: QueueName,
    scheduler_id: SchedulerId,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Run the pending job of a scheduler now; the one that follows is planned when it starts. Prints its id."""

    async def promote() -> str | None:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            scheduler = await opened.get_job_scheduler(scheduler_id)
            if scheduler is None:
                return None
            job: Job[Any] = await opened.get_job_or_raise(f"repeat:{scheduler_id}:{scheduler.next_ms}")
            await job.promote()
            return job.id

    job_id = run(promote(), as_json=as_json)
    if job_id is None:
        _no_such(queue, scheduler_id, as_json=as_json)
    if as_json:
        print_json({"id": job_id})
    else:
        console().print(printable(job_id), markup=False)


@app.command("rm")
def remove_scheduler(
    queue: QueueName,
    scheduler_id: SchedulerId,
    yes: Yes = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """End a job scheduler. Its pending job goes with it, unless its time has come."""
    confirm(f"End the job scheduler {scheduler_id!r} of queue {queue!r}?", yes=yes, as_json=as_json)

    async def remove() -> bool:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            return await opened.remove_job_scheduler(scheduler_id)

    if not run(remove(), as_json=as_json):
        _no_such(queue, scheduler_id, as_json=as_json)
    if as_json:
        print_json({"id": scheduler_id, "is_removed": True})
    else:
        console().print(f"job scheduler {scheduler_id!r}: removed", markup=False)


def _no_such(queue: str, scheduler_id: str, *, as_json: bool) -> NoReturn:
    complain(f"queue {queue!r} has no job scheduler {scheduler_id!r}", PROBLEM, as_json=as_json)


def _when(scheduler: JobScheduler) -> str:
    if scheduler.pattern is not None:
        return f"{scheduler.pattern} ({scheduler.tz})" if scheduler.tz else scheduler.pattern
    return f"every {(scheduler.every_ms or 0) / 1000:g} s"


def _facts(scheduler: JobScheduler) -> dict[str, Any]:
    """What tells about a scheduler without telling what its jobs are about."""
    names = (
        "id",
        "name",
        "next_ms",
        "iterations",
        "every_ms",
        "pattern",
        "tz",
        "limit",
        "start_ms",
        "end_ms",
    )
    return {name: getattr(scheduler, name) for name in (*names, "offset_ms", "missed")}
