"""`toril server`: a real Valkey in the foreground, for development and small installations."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Annotated

import typer

from toril.cli.common import PROBLEM, Json, complain
from toril.cli.output import console, print_json
from toril.embedded import EmbeddedServer, Persistence
from toril.errors import ConfigurationError

__all__ = ["server"]

USUAL_PORT = 6379
_KEEPS: dict[Persistence, str] = {
    "none": "in memory: what it holds is gone when it stops",
    "rdb": "snapshots; a crash loses what came after the last one",
    "aof": "append-only file, synced every second",
}


def server(
    persistence: Annotated[
        Persistence | None,
        typer.Option(
            envvar="TORIL_PERSISTENCE",
            help="What outlives a restart: snapshots, every write, or nothing. Default: aof with --dir, else none.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            envvar="TORIL_PORT",
            min=1,
            max=65535,
            help="Default: 6379, or a free one if that is taken.",
            show_default=False,
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            envvar="TORIL_DIR",
            help="Where data and log are kept. Default: below your data directory; temporary without persistence.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a real Valkey on this host until Ctrl-C or SIGTERM. Needs the extra `embedded`, or a server on the PATH."""
    kept: Persistence = persistence or ("aof" if directory else "none")
    if directory is None and kept != "none":
        directory = _data_home() / "toril" / kept
    # A handler runs in the middle of whatever the main thread does, its waiting too: an `Event` would wait there
    # for its own lock, for ever.
    signals: SimpleQueue[int] = SimpleQueue()
    # Before the start, so that a signal during it is not lost.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: signals.put(got))
    try:
        running = EmbeddedServer(directory, kept, port, preferred_port=USUAL_PORT).start()
    except ConfigurationError as error:
        complain(str(error), PROBLEM, as_json=as_json)
    try:
        _tell(running, kept, has_port=port is not None, as_json=as_json)
        if not _is_stopped(signals, running):
            complain(f"the server has ended{_last_words(running.dir)}", PROBLEM, as_json=as_json)
    finally:
        running.stop()
    if not as_json:
        console().print("Stopped.")


def _is_stopped(signals: SimpleQueue[int], running: EmbeddedServer) -> bool:
    """Wait for a signal; False where the server has ended by itself, which is noticed within the second."""
    while running.is_running:
        with contextlib.suppress(Empty):
            signals.get(timeout=1)
            return True
    return not signals.empty()


def _tell(running: EmbeddedServer, kept: Persistence, *, has_port: bool, as_json: bool) -> None:
    if as_json:
        print_json({"url": running.url, "pid": running.pid, "dir": str(running.dir), "persistence": kept})
        return
    out = console()
    out.print(f"Valkey listens at {running.url}  (process {running.pid})", markup=False)
    if running.port != USUAL_PORT and not has_port:
        out.print(
            f"Port {USUAL_PORT} is taken. Tell the others: export TORIL_URL={running.url}", markup=False
        )
    out.print(f"Keeps: {_KEEPS[kept]}", markup=False)
    out.print(f"Data and log: {running.dir}", markup=False)
    out.print("Ctrl-C stops it.", markup=False)


def _last_words(directory: Path) -> str:
    """Told here, since the log of a temporary directory goes with it."""
    try:
        lines = (directory / "server.log").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return f"; the last line of its log: {lines[-1]}" if lines else ""


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
