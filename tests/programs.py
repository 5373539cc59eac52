"""Programs that a test runs beside itself."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

__all__ = ["DEADLINE", "Running", "is_running"]

DEADLINE: Final = 60.0
"""Seconds for one program or one line; a loaded machine may need some of it."""


class Running:
    """A program in the background, whose lines can be waited for; SIGTERM ends it, in good order or the test fails."""

    def __init__(self, command: Sequence[str], url: str, cwd: Path | None = None) -> None:
        self._name = Path(command[-1]).name
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "TORIL_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_over = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait_for(self, start: str) -> None:
        """Wait until a line begins like this."""
        self._wait(lambda line: line.startswith(start), start)

    def wait_for_text(self, text: str) -> None:
        """Wait until a line has this in it."""
        self._wait(lambda line: text in line, text)

    def _wait(self, is_wanted: Callable[[str], bool], what: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or any(map(is_wanted, self._lines)), DEADLINE)
            assert any(map(is_wanted, self._lines)), (
                f"{self._name} never printed {what!r}, but:\n" + "\n".join(self._lines)
            )

    @property
    def lines(self) -> list[str]:
        with self._changed:
            return list(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if kind is None:
            assert code == 0, f"{self._name} exited with {code} after SIGTERM:\n" + "\n".join(self.lines)


def is_running(pid: int) -> bool:
    """Whether there is such a process. What init has not fetched yet is dead all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
