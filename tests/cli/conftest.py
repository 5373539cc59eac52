"""The command line, in this process for speed, or as a process of its own where signals matter."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner

from toril.cli.app import app


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """A printed table, without its headings."""
        return [line.split() for line in self.out.splitlines()[1:]]


class Toril(Protocol):
    def __call__(self, *args: str) -> Answer: ...


@pytest.fixture
def toril(server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Toril:
    """Run a command against the test's server and prefix."""
    for name in [name for name in os.environ if name.startswith("TORIL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORIL_URL", server_url)
    monkeypatch.setenv("TORIL_PREFIX", prefix)
    # Help and usage errors are drawn to the terminal's width.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    def run(*args: str) -> Answer:
        result = CliRunner().invoke(app, list(args))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


async def in_thread(toril: Toril, *args: str) -> Answer:
    """Run a command, which has an event loop of its own, outside the test's."""
    return await asyncio.to_thread(toril, *args)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `toril` as a process of its own, in the test's directory; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*args: str, **environment: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TORIL_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "toril.cli", *args],
            cwd=tmp_path,
            env=clean | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)
