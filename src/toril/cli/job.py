"""`toril job`: single jobs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from toril import Job, JobOptions, Queue
from toril.cli.common import PROBLEM, Json, Prefix, QueueName, Reveal, Url, Yes, confirm, run
from toril.cli.output import ago, console, moment, print_json, printable, redacted, table
from toril.codec import loads
from toril.errors import SerializationError, TransitionError
from toril.states import STATES, FinishedState, State

__all__ = ["app"]

app = typer.Typer(help="Jobs: look at them, add, retry, promote and remove them.", no_args_is_help=True)

JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="The ids of the jobs.")]
LOG_ROWS = 20


@app.command("ls")
def list_jobs(
    queue: QueueName,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            "-s",
            envvar="TORIL_STATE",
            help=f"One of {', '.join(STATES)}; may be repeated. Default: all.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(envvar="TORIL_LIMIT", min=1, help="The most jobs of each state.")
    ] = 20,
    start: Annotated[int, typer.Option(envvar="TORIL_START", min=0, help="Skip so many of each state.")] = 0,
    ascending: Annotated[
        bool, typer.Option("--ascending", envvar="TORIL_ASCENDING", help="The oldest first, not the newest.")
    ] = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """List the jobs of a queue. Their data is not shown: `toril job show` does."""
    wanted: list[State] = [_state(text) for text in states or STATES]

    async def read() -> tuple[int, list[tuple[State, Job[Any]]]]:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            await opened.connection.learn_time()
            found: list[tuple[State, Job[Any]]] = [
                (state, job)
                for state in wanted
                for job in await opened.get_jobs(state, start, start + limit - 1, ascending=ascending)
            ]
            return opened.clock.now_ms(), found

    now_ms, found = run(read(), as_json=as_json)
    if as_json:
        print_json([_summary(state, job) for state, job in found])
    elif found:
        rows = [
            [
                job.id,
                job.name,
                state,
                f"{job.attempts_made}/{max(1, job.options.attempts)}",
                ago(job.timestamp, now_ms),
                _first_line(job.failed_reason) if state == "failed" else "",
            ]
            for state, job in found
        ]
        table(["id", "name", "state", "attempts", "age", "failed reason"], rows, right=["attempts", "age"])
    else:
        console().print(f"No jobs in {', '.join(wanted)}.", markup=False)


@app.command("show")
def show_job(
    queue: QueueName,
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The id of the job.")],
    reveal: Reveal = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Show one job: its data, options, state, and what it has left behind."""

    async def read() -> dict[str, Any]:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            job = await opened.get_job_or_raise(job_id)
            logs = await opened.get_job_logs(job_id, -LOG_ROWS, -1)
            shown = _summary(await job.get_state(), job)
            return shown | {
                "delay": job.delay,
                "priority": job.priority,
                "attempts_started": job.attempts_started,
                "stalled_counter": job.stalled_counter,
                "processed_by": job.processed_by,
                "data": _read(lambda: job.data, reveal),
                "options": dict(job.options.raw),
                "progress": _read(lambda: job.progress, reveal),
                "return_value": _read(lambda: job.return_value, reveal),
                "stacktrace": job.stacktrace,
                "logs": logs.logs,
                "log_count": logs.count,
            }

    shown = run(read(), as_json=as_json)
    if as_json:
        print_json(shown)
        return
    out = console()
    times = ("timestamp", "processed_on", "finished_on")
    for key, value in shown.items():
        if key in ("stacktrace", "logs", "log_count") or value is None:
            continue
        text = moment(value) if key in times else value if isinstance(value, str) else _pretty(value)
        out.print(f"{key:17} {printable(text)}", markup=False)
    if shown["stacktrace"]:
        out.print("\nstack trace of the last failed attempt", markup=False)
        out.print(printable(shown["stacktrace"][-1]), markup=False)
    if shown["logs"]:
        out.print(f"\nlog, the last {len(shown['logs'])} of {shown['log_count']} rows", markup=False)
        for row in shown["logs"]:
            out.print(printable(row), markup=False)


@app.command("retry")
def retry_jobs(
    queue: QueueName,
    job_ids: JobIds,
    state: Annotated[
        FinishedState, typer.Option("--state", envvar="TORIL_RETRY_STATE", help="Where they are.")
    ] = "failed",
    reset_attempts: Annotated[
        bool,
        typer.Option("--reset-attempts", envvar="TORIL_RESET_ATTEMPTS", help="Give them all attempts again."),
    ] = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Run finished jobs again. Exits with 1 if one of them could not be moved."""

    async def retry(opened: Queue, job_id: str) -> None:
        await (await opened.get_job_or_raise(job_id)).retry(state, reset_attempts_made=reset_attempts)

    _each(queue, job_ids, retry, "is_retried", "waits to run again", url, prefix, as_json=as_json)


@app.command("add")
def add_job(
    queue: QueueName,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Chooses the processor.")],
    data: Annotated[str, typer.Argument(metavar="[DATA]", help="JSON.")] = "{}",
    delay: Annotated[float, typer.Option(envvar="TORIL_DELAY", min=0, help="Seconds.")] = 0,
    priority: Annotated[
        int, typer.Option(envvar="TORIL_PRIORITY", min=0, help="1 runs first; 0 before all of them.")
    ] = 0,
    attempts: Annotated[int, typer.Option(envvar="TORIL_ATTEMPTS", min=1, help="How often in all.")] = 1,
    job_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            envvar="TORIL_JOB_ID",
            help="An id of your own; adding it twice adds it once.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Add a job, and print its id."""
    try:
        payload = loads(data)
    except SerializationError as error:
        # What is wrong with it; it is not stored yet.
        words = str(error).removeprefix("data: ").removeprefix("stored text is ")
        raise typer.BadParameter(
            f'{words}; in a shell it stands in quotes: \'{{"name": "value"}}\'', param_hint="DATA"
        ) from None
    options: JobOptions = {"delay": delay, "priority": priority, "attempts": attempts}
    if job_id is not None:
        options["job_id"] = job_id

    async def add() -> str:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            return (await opened.add(name, payload, **options)).id

    added = run(add(), as_json=as_json)
    if as_json:
        print_json({"id": added})
    else:
        console().print(added, markup=False)


@app.command("promote")
def promote_jobs(
    queue: QueueName, job_ids: JobIds, url: Url = None, prefix: Prefix = "bull", as_json: Json = False
) -> None:
    """Run delayed jobs now. Exits with 1 if one of them is not delayed."""

    async def promote(opened: Queue, job_id: str) -> None:
        await (await opened.get_job_or_raise(job_id)).promote()

    _each(queue, job_ids, promote, "is_promoted", "waits to run now", url, prefix, as_json=as_json)


@app.command("remove")
def remove_jobs(
    queue: QueueName,
    job_ids: JobIds,
    keep_children: Annotated[
        bool,
        typer.Option("--keep-children", envvar="TORIL_KEEP_CHILDREN", help="Leave the jobs below them."),
    ] = False,
    yes: Yes = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Remove jobs, with those below them. Exits with 1 if one is not there, or a worker holds it."""
    confirm(f"Remove {', '.join(map(repr, job_ids))} from queue {queue!r}?", yes=yes, as_json=as_json)

    async def remove(opened: Queue, job_id: str) -> None:
        job = await opened.get_job_or_raise(job_id)
        if not await job.remove(remove_children=not keep_children):
            raise TransitionError(job_id, "a worker holds it, or a job below it; nothing was removed")

    _each(queue, job_ids, remove, "is_removed", "removed", url, prefix, as_json=as_json)


@app.command("logs")
def show_logs(
    queue: QueueName,
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The id of the job.")],
    limit: Annotated[int, typer.Option(envvar="TORIL_LIMIT", min=1, help="The newest so many rows.")] = 1000,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Print the log of a job, the oldest row first."""

    async def read() -> list[str]:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            await opened.get_job_or_raise(job_id)
            return (await opened.get_job_logs(job_id, -limit, -1)).logs

    rows = run(read(), as_json=as_json)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            console().print(printable(row), markup=False)


def _each(
    queue: str,
    job_ids: list[str],
    act: Callable[[Queue, str], Awaitable[None]],
    fact: str,
    words: str,
    url: str | None,
    prefix: str,
    *,
    as_json: bool,
) -> None:
    """Act on each job and tell of each; one that was refused makes the exit code 1, and stops no other."""

    async def work() -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            for job_id in job_ids:
                try:
                    await act(opened, job_id)
                except TransitionError as error:
                    answers.append({"id": job_id, fact: False, "error": str(error)})
                else:
                    answers.append({"id": job_id, fact: True})
        return answers

    answers = run(work(), as_json=as_json)
    if as_json:
        print_json(answers)
    else:
        for answer in answers:
            if answer[fact]:
                console().print(f"job {answer['id']!r}: {words}", markup=False)
            else:
                typer.echo(f"toril: {printable(answer['error'])}", err=True)
    if not all(answer[fact] for answer in answers):
        raise typer.Exit(PROBLEM)


def _state(text: str) -> State:
    if text not in STATES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(STATES)}", param_hint="--state")
    return text


def _summary(state: State, job: Job[Any]) -> dict[str, Any]:
    """What tells about a job without telling what it is about."""
    return {
        "id": job.id,
        "name": job.name,
        "state": state,
        "attempts_made": job.attempts_made,
        "attempts": max(1, job.options.attempts),
        "timestamp": job.timestamp,
        "processed_on": job.processed_on,
        "finished_on": job.finished_on,
        "failed_reason": job.failed_reason,
    }


def _read(get: Callable[[], Any], reveal: bool) -> Any:
    """Return what a client stored; if it is not JSON, say so rather than show nothing of the job."""
    try:
        return get() if reveal else redacted(get())
    except SerializationError as error:
        return f"(unreadable: {error})"


def _first_line(text: str | None) -> str:
    return (text or "").splitlines()[0][:200] if text else ""


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
