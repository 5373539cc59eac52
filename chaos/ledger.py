"""What really happened, written down outside the server: one append-only file for each process.

A line is one JSON object, written by one call to the operating system, so `kill -9` loses no line and leaves no half
one. Times are seconds of this machine's monotonic clock, which all its processes share and nobody turns.

    {"e": "sent", "id", "delay", "fails", "t"}   the producer is about to add a job; with `keep` where it may be removed
    {"e": "acked", "id", "t"}                    its `add` has returned; with `given`, the id that the server gave it
    {"e": "shared", "id", "by", "t"}             the same, and another job of its deduplication id was there already
    {"e": "unknown", "id", "why", "t"}           its `add` has raised that nothing is known
    {"e": "refused", "id", "why", "t"}           its `add` has raised, and was given up
    {"e": "start", "id", "run", "pid", "t"}      a processor has begun; `run` is the number of this start
    {"e": "end", "id", "run", "pid", "t"}        it has done its work and is about to return
    {"e": "gone", "id", "run", "pid", "t"}       it was cancelled before it had
    {"e": "health", "pid", "state", "t"}         what a worker says of itself has changed
    {"e": "first", "pid", "t"}                   a worker that notes nothing else has begun a job
    {"e": "fault" | "healed", "what", "t"}       the driver
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "read"]


class Ledger:
    """One process's file.

    Args:
        directory: Where the files of one cell are.
        role: What the process is; becomes part of the file's name.
    """

    def __init__(self, directory: Path | str, role: str) -> None:
        path = Path(directory, f"{role}-{os.getpid()}.jsonl")
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: str, **facts: Any) -> None:
        """Write one line."""
        os.write(self._file, json.dumps({"e": event, "t": time.monotonic(), **facts}).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read(directory: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of all processes, in no order between files."""
    for path in sorted(directory.glob("*.jsonl")):
        with path.open() as lines:
            for line in lines:
                yield json.loads(line)
