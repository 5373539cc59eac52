"""What `python -m dev` says: its own progress, and the lines of its children under coloured names."""

from __future__ import annotations

import logging
import os
import re
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, TextIO

__all__ = ["ChildLog", "Console"]

LARGEST_LOG_BYTES: Final = 5_000_000
_COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92)
# A child's words may come from strangers; they are not to steer the terminal.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Console:
    """Writes whole lines. A terminal that is gone is no reason to stop."""

    def __init__(self, names: list[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._width = max(map(len, names), default=0)
        self._colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
        self._is_coloured = _wants_colours(self._stream)
        reconfigure = getattr(self._stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")

    def say(self, text: str = "") -> None:
        try:
            print(text, file=self._stream, flush=True)
        except (OSError, ValueError):
            return

    def strong(self, text: str) -> str:
        return self._paint(text, 1)

    def faint(self, text: str) -> str:
        return self._paint(text, 2)

    def good(self, text: str) -> str:
        return self._paint(text, 32)

    def bad(self, text: str) -> str:
        return self._paint(text, 31)

    def line(self, name: str, text: str) -> None:
        """Print a line under the name of a child."""
        self.say(self._paint(f"{name:>{self._width}} │", self._colours.get(name, 37)) + f" {text}")

    def _paint(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_coloured else text


class ChildLog:
    """A child's output, on the console and in a file that is cut at a few megabytes.

    Lines go to the file only until `console` is set, which keeps the start of many children readable.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.console: Console | None = None
        self.last: list[str] = []
        """The last lines, for the message about a child that does not start."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = RotatingFileHandler(path, maxBytes=LARGEST_LOG_BYTES, backupCount=1, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def write(self, line: str) -> None:
        text = _CONTROL.sub("", line).rstrip()
        self.last = [*self.last[-19:], text]
        self._file.emit(logging.LogRecord(self.name, logging.INFO, "", 0, text, None, None))
        if self.console is not None:
            self.console.line(self.name, text)

    def close(self) -> None:
        self._file.close()


def _wants_colours(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")
