"""The tree of commands. What each does is in the module of its name."""

from __future__ import annotations

from typing import Annotated

import typer

from toril import __version__
from toril.cli import cron, doctor, health, job, queue, server, watching, why, worker
from toril.cli.output import steady_streams

__all__ = ["app"]


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"toril {__version__}")
        raise typer.Exit


def _begin(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    steady_streams()


app = typer.Typer(
    callback=_begin,
    help="A job queue on Redis or Valkey that shares its queues with BullMQ.",
    no_args_is_help=True,
    # A traceback with local variables would print payloads and passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all is well, 1 a problem was found, 2 wrong usage, 3 no connection to the server.",
)
app.command("worker")(worker.worker)
app.command("server")(server.server)
app.command("check")(health.check)
app.command("doctor")(doctor.doctor)
app.add_typer(queue.app, name="queue")
app.add_typer(job.app, name="job")
app.add_typer(cron.app, name="cron")
app.command("workers")(watching.workers)
app.command("events")(watching.events)
app.command("why")(why.why)
