"""How the command line shows things: JSON, tables, times, and data without its secrets."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "ago",
    "console",
    "json_text",
    "moment",
    "nobody_reads",
    "print_json",
    "printable",
    "redacted",
    "steady_streams",
    "table",
]

_SECRET = re.compile(r"password|passwd|token|secret|authorization|api[-_]?key|card", re.IGNORECASE)
_HIDDEN = "***"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read this, such as `head`, has seen enough: that is no problem that was found."""
        nobody_reads()
        raise typer.Exit(0)


def console() -> Console:
    # Made when needed: tests, and pipes that are opened late, change sys.stdout.
    return _Console(highlight=False, soft_wrap=True, emoji=False)


def steady_streams() -> None:
    """Let output be written whatever a job holds: what the terminal's character set lacks is escaped."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            # Closed by whoever started the program.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def nobody_reads() -> None:
    """After a broken pipe: what is still buffered must not be flushed into it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON that stdout can write: with escapes, where its character set lacks something."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, default=str)
    return text


def print_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    try:
        sys.stdout.write(json_text(value, 2) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        nobody_reads()
        raise typer.Exit(0) from None


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print rows under headings. On a narrow terminal the last column wraps; into a pipe nothing does."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        is_last = column == columns[-1]
        shown.add_column(
            column, justify="right" if column in right else "left", no_wrap=not is_last, overflow="fold"
        )
    for row in rows:
        # Text, not str: nothing that stands in a job is taken for markup.
        shown.add_row(*(Text(printable(str(cell))) for cell in row))
    _Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000).print(shown)


def printable(text: str) -> str:
    """Escape control characters: what others put into a job must not steer the reader's terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def redacted(value: Any) -> Any:
    """Return JSON with the values of keys that sound secret replaced, at any depth."""
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return {key: _HIDDEN if _SECRET.search(key) else redacted(held) for key, held in pairs}
    if isinstance(value, list):
        return [redacted(member) for member in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def moment(epoch_ms: int | None) -> str:
    """Return a local time, to the millisecond; a dash for none."""
    if not epoch_ms:
        return "-"
    try:
        return (
            datetime.fromtimestamp(epoch_ms / 1000).astimezone().isoformat(sep=" ", timespec="milliseconds")
        )
    except (ValueError, OverflowError, OSError):
        return f"{epoch_ms} ms, which is beyond all calendars"


def ago(epoch_ms: int | None, now_ms: int) -> str:
    """Return how long ago in the two largest units, e.g. `3m12s`; a dash for never."""
    if not epoch_ms:
        return "-"
    seconds = max(0, (now_ms - epoch_ms) // 1000)
    units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]
    parts: list[str] = []
    for letter, size in units:
        count, seconds = divmod(seconds, size)
        if count or parts or letter == "s":
            parts.append(f"{count}{letter}")
    return "".join(parts[:2])
