"""What the commands share: their common flags, how they run, and what an error becomes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from toril.cli.output import nobody_reads, print_json
from toril.errors import AuthenticationError, ConfigurationError, ConnectionLostError, TorilError

__all__ = [
    "CANNOT_CONNECT",
    "PROBLEM",
    "USAGE",
    "Json",
    "Prefix",
    "QueueName",
    "Reveal",
    "Url",
    "Yes",
    "complain",
    "confirm",
    "errors_explained",
    "exit_code",
    "run",
]

PROBLEM, USAGE, CANNOT_CONNECT = 1, 2, 3

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="TORIL_URL",
        help="The server: redis://, rediss://, unix:// or embedded://. Default: redis://localhost:6379.",
        show_default=False,
    ),
]
Prefix = Annotated[str, typer.Option("--prefix", envvar="TORIL_PREFIX", help="What all keys begin with.")]
Json = Annotated[bool, typer.Option("--json", envvar="TORIL_JSON", help="Print JSON, for programs.")]
Reveal = Annotated[
    bool,
    typer.Option(
        "--reveal", envvar="TORIL_REVEAL", help="Show values of keys that sound secret, such as `password`."
    ),
]

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The name of the queue.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar="TORIL_YES", help="Do not ask.")]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    """Run a command's asynchronous part; an error of toril's ends the program with a message."""
    with errors_explained(as_json=as_json):
        return asyncio.run(work)


def confirm(question: str, *, yes: bool, as_json: bool) -> None:
    """Ask before something is lost. Where nobody can answer, only `--yes` does; else the program ends with 2."""
    if yes:
        return
    # It is None where whoever started the program has closed it.
    if as_json or sys.stdin is None or not sys.stdin.isatty():
        complain(f"{question} Say so with --yes.", USAGE, as_json=as_json)
    # What the command itself prints may be on its way into a file.
    if not typer.confirm(question, err=True):
        raise typer.Exit(PROBLEM)


@contextmanager
def errors_explained(*, as_json: bool = False) -> Generator[None]:
    """Turn an error of toril's into a message on stderr, without a traceback, and the exit code for it."""
    try:
        yield
    except TorilError as error:
        complain(str(error), exit_code(error), as_json=as_json)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        nobody_reads()
        raise typer.Exit(0) from None


def exit_code(error: TorilError) -> int:
    if isinstance(error, (ConnectionLostError, AuthenticationError)):
        return CANNOT_CONNECT
    return USAGE if isinstance(error, ConfigurationError) else PROBLEM


def complain(message: str, code: int, *, as_json: bool = False) -> NoReturn:
    """Say what is wrong and exit with `code`. Under --json, stdout still holds one JSON document."""
    if as_json:
        print_json({"error": message, "exit_code": code})
    else:
        typer.echo(f"toril: {message}", err=True)
    raise typer.Exit(code)
