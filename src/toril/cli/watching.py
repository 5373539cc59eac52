"""`toril workers` and `toril events`: who is there, and what happens."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from toril import Connection, Event, Queue, QueueEvents, find_queues
from toril.cli.common import Json, Prefix, QueueName, Url, errors_explained, run
from toril.cli.output import console, json_text, moment, print_json, printable, table

__all__ = ["events", "workers"]

# What a job is about; shown when asked for.
_PRIVATE = frozenset({"data", "returnvalue", "failedReason"})


def workers(url: Url = None, prefix: Prefix = "bull", as_json: Json = False) -> None:
    """List the workers of all queues under a prefix, Node's among them, by their connections."""
    found = run(_workers(url, prefix), as_json=as_json)
    if as_json:
        print_json(found)
    elif found:
        rows = [[row["queue"], row["worker"] or "-", row["address"], f"{row['age']} s"] for row in found]
        table(["queue", "worker", "address", "connected for"], rows, right=["connected for"])
    else:
        console().print(f"No workers of queues under the prefix {prefix!r}.", markup=False)


async def _workers(url: str | None, prefix: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with Connection(url) as connection:
        for name in await find_queues(connection, prefix):
            for client in await Queue(name, connection=connection, prefix=prefix).get_workers():
                named = client["name"].partition(":w:")[2]
                age = int(client.get("age", 0))
                rows.append({"queue": name, "worker": named, "address": client.get("addr", ""), "age": age})
    return rows


def events(
    queue: QueueName,
    limit: Annotated[
        int, typer.Option("--limit", "-n", envvar="TORIL_LIMIT", min=0, help="Begin with the last so many.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", envvar="TORIL_FOLLOW", help="Wait for more, until Ctrl-C.")
    ] = False,
    reveal: Annotated[
        bool,
        typer.Option(
            "--reveal", envvar="TORIL_REVEAL", help="Show progress, return values and failed reasons."
        ),
    ] = False,
    url: Url = None,
    prefix: Prefix = "bull",
    as_json: Json = False,
) -> None:
    """Print what has happened in a queue, the oldest first. With --json and --follow, one document a line."""

    async def recent() -> list[Event]:
        async with Queue(queue, connection=url, prefix=prefix) as opened:
            listed = await opened.connection.execute(
                "XREVRANGE", opened.keys.key("events"), "+", "-", "COUNT", max(limit, 1)
            )
        return [_event(event_id, pairs) for event_id, pairs in reversed(listed)]

    async def onwards(last: str | None) -> None:
        async with QueueEvents(queue, connection=url, prefix=prefix, last_event_id=last) as heard:
            async for event in heard:
                _print(event, reveal, as_json=as_json)

    found = run(recent(), as_json=as_json)
    shown = found[-limit:] if limit else []
    if as_json and not follow:
        print_json([_facts(event, reveal) for event in shown])
        return
    with errors_explained(as_json=as_json):
        for event in shown:
            _print(event, reveal, as_json=as_json)
        if follow:
            try:
                run(onwards(found[-1].id if found else "0-0"), as_json=as_json)
            except KeyboardInterrupt:
                raise typer.Exit(0) from None


def _event(event_id: str, pairs: list[str]) -> Event:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=False))
    return Event(event_id, fields.pop("event", ""), fields)


def _facts(event: Event, reveal: bool) -> dict[str, Any]:
    fields = {name: value for name, value in event.fields.items() if reveal or name not in _PRIVATE}
    return {"id": event.id, "event": event.name, **fields}


def _print(event: Event, reveal: bool, *, as_json: bool) -> None:
    facts = _facts(event, reveal)
    if as_json:
        sys.stdout.write(json_text(facts) + "\n")
        sys.stdout.flush()
        return
    at = moment(int(facts.pop("id").partition("-")[0]))
    name = facts.pop("event")
    rest = " ".join(f"{field}={value}" for field, value in facts.items())
    console().print(printable(f"{at}  {name:18} {rest}".rstrip()), markup=False)
