"""`python -m dev` in another process, for tests that need the whole platform."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from dev.children import spawn
from dev.description import Description

__all__ = ["Running", "running"]

ROOT = Path(__file__).parents[1]


class Running:
    """A runner in another process, and what it says."""

    def __init__(self, dir: Path, *arguments: str, **environment: str) -> None:
        self.dir = dir
        self.said = dir.parent / f"{dir.name}.out"
        env = {name: value for name, value in os.environ.items() if name not in ("MONGODB_URL", "TORIL_URL")}
        with self.said.open("wb") as output:
            # Tests that are killed take their runner along.
            self.process = spawn(
                [sys.executable, "-m", "dev", "--dir", dir, *arguments],
                cwd=ROOT,
                env=env | environment,
                output=output,
            )

    @property
    def output(self) -> str:
        return self.said.read_text(errors="replace")

    @property
    def description(self) -> Description:
        """What runs; FileNotFoundError until all of it does."""
        found: Description = json.loads((self.dir / "running.json").read_text())
        return found

    @property
    def pids(self) -> dict[str, int]:
        return self.description["processes"]

    def wait_for(self, is_so: Callable[[], bool], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process.poll() is None, f"the runner ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"no sign of {what} within {seconds} s:\n{self.output}"
            time.sleep(0.05)

    def wait_until_started(self) -> None:
        self.wait_for(self._has_started, "everything running", 120)

    def _has_started(self) -> bool:
        try:
            # A killed runner may have left a description of its own.
            return self.description["pid"] == self.process.pid
        except FileNotFoundError:
            return False

    def wait_for_another(self, name: str, than: int) -> None:
        self.wait_for(lambda: self.pids.get(name, than) != than, f"{name} running again")

    def interrupt(self, seconds: float = 20) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)


@contextmanager
def running(dir: Path, *arguments: str, **environment: str) -> Generator[Running]:
    runner = Running(dir, *arguments, **environment)
    try:
        runner.wait_until_started()
        yield runner
    finally:
        if runner.process.poll() is None:
            runner.interrupt()
