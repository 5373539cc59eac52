"""`toril queue`: queues as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from toril import Connection, Queue, find_queues
from toril.cli.common import PROBLEM, Json, Prefix, QueueName, Url, Yes, complain, confirm, run
from toril.cli.output import console, print_json, table
from toril.states import STATES, FinishedState, State

__all__ = ["app"]

ORDER: list[State] = [
    "waiting",
    "prioritized",
    "delayed",
    "waiting-children",
    "active",
    "completed",
    "failed",
]
RARE: set[State] = {"prioritized", "waiting-children"}

T = TypeVar("T")

app = typer.Typer(help="Queues: look at them, and act on all their jobs.", no_args_is_help=True)


@app.command("ls")
def list_queues(url: Url = None, prefix: Prefix = "bull", as_json: Json = False) -> None:
    """List the queues under a prefix, and how many jobs they hold in each state."""
    found = run(_read(url, prefix), as_json=as_json)
    if as_json:
        print_json(found)
    elif found:
        # States that few use take no room where nobody uses them.
        shown = [state for state in ORDER if state not in RARE or any(row["counts"][state] for row in found)]
        rows = [
            [row["queue"], *(row["counts"][state] for state in shown), "paused" if row["is_paused"] else ""]
            for row in found
        ]
        table(["queue", *shown, ""], rows, right=shown)
    else:
        console().print(f"No queues under the prefix {prefix!r}.", markup=False)


async def _read(url: str | None, prefix: str) -> list[dict[str, Any]]:
    async with Connection(url) as connection:
        rows: list[dict[str, Any]] = []
        for name in await find_queues(connection, prefix):
            queue = Queue(name, connection=connection, prefix=prefix)
            counts = await queue.get_job_counts()
            rows.append({"queue": name, "is_paused": await queue.is_paused(), "counts": counts})
        return rows


@app.command("show")
def show_queue(queue: QueueName, url: Url = None, prefix: Prefix = "bull", as_json: Json = False) -> None:
    """Show one queue: its counts, limits, workers and job schedulers."""

    async def read(opened: Queue) -> dict[str, Any]:
        limit = await opened.get_global_rate_limit()
        return {
            "queue": opened.name,
            "is_paused": await opened.is_paused(),
            "counts": await opened.get_job_counts(),
            "workers": len(await opened.get_workers()),
            "job_schedulers": await opened.get_job_schedulers_count(),
            "global_concurrency": await opened.get_global_concurrency(),
            "global_rate_limit": None if limit is None else {"jobs": limit[0], "seconds": limit[1]},
            "rate_limited_for": await opened.get_rate_limit_ttl(),
        }

    shown = _on(queue, read, url, prefix, as_json=as_json)
    if as_json:
        print_json(shown)
        return
    counts = shown.pop("counts")
    limit = shown["global_rate_limit"]
    shown["global_rate_limit"] = limit and f"{limit['jobs']} in {limit['seconds']:g} s"
    shown["rate_limited_for"] = f"{shown['rate_limited_for']:g} s" if shown["rate_limited_for"] else None
    for key, value in (shown | {state: counts[state] for state in ORDER}).items():
        if value is not None and value is not False:
            console().print(f"{key:18} {'yes' if value is True else value}", markup=False)


@app.command("pause")
def pause(queue: QueueName, url: Url = None, prefix: Prefix = "bull", as_json: Json = False) -> None:
    """Let no worker fetch from a queue until it is resumed. Running jobs go on, jobs can be added."""
    _on(queue, Queue.pause, url, prefix, as_json=as_json)
    _told(queue, "is paused", {"is_paused": True}, as_json=as_json)


@app.command("resume")
def resume(queue: QueueName, url: Url = None, prefix: Prefix = "bull", as_json: Json = False) -> None:
    """Let workers fetch from a queue again."""
    _on(queue, Queue.resume, url, prefix, as_json=as_json)
    _told(queue, "goes on", {"is_paused": False}, as_json=as_json)


@app.command("drain")
def drain(
    queue: QueueName,
    delayed: Annotated[
        bool, typer.Option("--delayed", envvar="TORIL_DELAYED", help="Delayed jobs too.")
    ] = False,
    yes: Yes = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Remove all jobs that wait. Running, failed and completed ones stay, and so do the runs of schedulers."""
    confirm(f"Remove all jobs that wait in queue {queue!r}?", yes=yes, as_json=as_json)
    removed = _on(queue, lambda opened: opened.drain(delayed=delayed), url, prefix, as_json=as_json)
    _told(queue, f"{removed} removed", {"removed": removed}, as_json=as_json)


@app.command("clean")
def clean(
    queue: QueueName,
    state: Annotated[
        str, typer.Option("--state", "-s", envvar="TORIL_STATE", help=f"One of {', '.join(STATES)}.")
    ] = "completed",
    grace: Annotated[
        float, typer.Option(envvar="TORIL_CLEAN_GRACE", min=0, help="Seconds; younger jobs are kept.")
    ] = 0,
    limit: Annotated[
        int, typer.Option(envvar="TORIL_LIMIT", min=0, help="About how many at most; 0 for all.")
    ] = 0,
    yes: Yes = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Remove the jobs of a state. Active ones go only if no worker holds them."""
    checked = _checked(state)
    confirm(f"Remove the {state} jobs of queue {queue!r}?", yes=yes, as_json=as_json)
    removed = _on(queue, lambda opened: opened.clean(grace, limit, checked), url, prefix, as_json=as_json)
    _told(queue, f"{len(removed)} removed", {"removed": len(removed)}, as_json=as_json)


@app.command("obliterate")
def obliterate(
    queue: QueueName,
    force: Annotated[
        bool, typer.Option("--force", envvar="TORIL_FORCE", help="Although jobs are running.")
    ] = False,
    yes: Yes = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Remove a queue and all it has. Exits with 1, and leaves it paused, if jobs are running.

    Receipts of adds (keys with `toril:add:`) expire by themselves within five minutes.
    """
    confirm(f"Remove queue {queue!r} and all it has?", yes=yes, as_json=as_json)
    _on(queue, lambda opened: opened.obliterate(force=force), url, prefix, as_json=as_json)
    _told(queue, "is gone", {"is_gone": True}, as_json=as_json)


@app.command("retry")
def retry(
    queue: QueueName,
    state: Annotated[
        FinishedState, typer.Option("--state", envvar="TORIL_RETRY_STATE", help="Where they are.")
    ] = "failed",
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Run all failed, or all completed, jobs of a queue again."""
    moved = _on(queue, lambda opened: opened.retry_jobs(state), url, prefix, as_json=as_json)
    _told(queue, f"{moved} wait to run again", {"retried": moved}, as_json=as_json)


@app.command("promote")
def promote(queue: QueueName, url: Url = None, prefix: Prefix = "bull", as_json: Json = False) -> None:
    """Run all delayed jobs of a queue now."""
    moved = _on(queue, Queue.promote_jobs, url, prefix, as_json=as_json)
    _told(queue, f"{moved} promoted", {"promoted": moved}, as_json=as_json)


def _checked(state: str) -> State:
    if state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--state")
    return state


def _on(
    name: str,
    act: Callable[[Queue], Awaitable[T]],
    url: str | None,
    prefix: str,
    *,
    as_json: bool,
) -> T:
    """Act on a queue, if there is one of this name: a mistyped one must not look well and be paused."""

    async def look_first() -> list[T]:
        async with Queue(name, connection=url, prefix=prefix) as queue:
            return [await act(queue)] if await queue.get_meta() else []

    answers = run(look_first(), as_json=as_json)
    if not answers:
        complain(f"no queue {name!r} under the prefix {prefix!r}", PROBLEM, as_json=as_json)
    return answers[0]


def _told(queue: str, words: str, facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"queue": queue, **facts})
    else:
        console().print(f"queue {queue!r}: {words}", markup=False)
