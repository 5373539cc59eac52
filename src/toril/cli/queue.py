"""`toril queue`: queues as a whole."""

from __future__ import annotations

from typing import Any

import typer

from toril import Connection, Queue, find_queues
from toril.cli.common import Json, Prefix, Url, run
from toril.cli.output import console, print_json, table
from toril.states import State

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

app = typer.Typer(help="Queues: what there is.", no_args_is_help=True)


@app.callback()
def queues() -> None:
    """Queues: what there is."""


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
