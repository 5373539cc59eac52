"""How the command line shows things: JSON, tables, times, and data without its secrets."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["ago", "console", "moment", "print_json", "redacted", "table"]

_SECRET = re.compile(r"password|passwd|token|secret|authorization|api[-_]?key|card", re.IGNORECASE)
_HIDDEN = "***"


def console() -> Console:
    # Made when needed: tests, and pipes that are opened late, change sys.stdout.
    return Console(highlight=False, soft_wrap=True, emoji=False)


def print_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()


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
    Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000).print(shown)


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
    return datetime.fromtimestamp(epoch_ms / 1000).astimezone().isoformat(sep=" ", timespec="milliseconds")


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
