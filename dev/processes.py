"""A child process that is kept alive: restarted when it ends, until it is told to stop."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from dev.children import leashed, signal_group
from dev.console import ChildLog

__all__ = ["Child", "ChildDidNotStartError", "describe_exit", "run_once"]

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 10.0
"""A child that ran so long starts again after the first, short wait."""
TRIES_AT_START: Final = 3
SURELY_READY_SECONDS: Final = 3.0
LONGEST_LINE: Final = 64 * 1024


class ChildDidNotStartError(Exception):
    """The child ended three times before it was ever ready."""

    def __init__(self, child: Child, reason: str) -> None:
        super().__init__(f"{child.name}: {reason}")
        self.child = child
        self.reason = reason


class Child:
    """One program under supervision.

    Args:
        command: Run anew after each end.
        is_ready: Asked every 50 ms from start on until it is true. A text: ready once it has printed that, or has
            lived for three seconds.
        on_end: Told in words how the child ended, and when it starts again.
        on_return: Told when a child that had ended is ready again.
        pass_fds: File descriptors that the child inherits.
        grace: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: ChildLog,
        env: Mapping[str, str],
        cwd: Path,
        is_ready: Callable[[], Awaitable[bool]] | str,
        on_end: Callable[[str], None],
        on_return: Callable[[str], None],
        pass_fds: Sequence[int] = (),
        grace: float = 5,
        ready_timeout: float = 60,
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._env = env
        self._cwd = cwd
        self._is_ready = is_ready if callable(is_ready) else lambda: self._has_said(is_ready)
        self._on_end = on_end
        self._on_return = on_return
        self._pass_fds = tuple(pass_fds)
        self._grace = grace
        self._ready_timeout = ready_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False
        self._began = 0.0
        self._supervision: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Return when the child is ready.

        Raises:
            ChildDidNotStartError: It gave up trying; nothing runs.
        """
        self._supervision = asyncio.get_running_loop().create_task(self._supervise(), name=self.name)
        ready = asyncio.ensure_future(self._ready.wait())
        try:
            async with asyncio.timeout(self._ready_timeout):
                await asyncio.wait({ready, self._supervision}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            await self.stop()
            raise ChildDidNotStartError(self, f"not ready within {self._ready_timeout:.0f} s") from error
        finally:
            ready.cancel()
        if self._supervision.done() and not self._is_stopping:
            self._supervision.result()

    async def stop(self) -> None:
        """End the child for good: SIGTERM, then SIGKILL. Safe to call at any time, also twice."""
        self._is_stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self._grace):
                    await process.wait()
            except TimeoutError:
                self._on_end(f"does not stop within {self._grace:g} s: killed")
            signal_group(process.pid, signal.SIGKILL)
        if self._supervision is not None:
            self._supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError, ChildDidNotStartError):
                await self._supervision

    def kill(self) -> None:
        """Kill it and what it started, and do not wait."""
        self._is_stopping = True
        if self._process is not None and self._process.returncode is None:
            signal_group(self._process.pid, signal.SIGKILL)

    async def _supervise(self) -> None:
        wait, failures = FIRST_WAIT_SECONDS, 0
        while not self._is_stopping:
            self._began = time.monotonic()
            self.log.last = []
            code = await self._run_once(is_first=failures == 0 and not self._ready.is_set())
            if self._is_stopping:
                return
            if not self._ready.is_set():
                failures += 1
                if failures == TRIES_AT_START:
                    raise ChildDidNotStartError(self, f"{describe_exit(code)}, {failures} times")
            if time.monotonic() - self._began > STEADY_SECONDS:
                wait = FIRST_WAIT_SECONDS
            self._on_end(f"{describe_exit(code)}; starting it again in {wait:g} s")
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _run_once(self, *, is_first: bool) -> int:
        """Run the program until it ends, and return its code."""
        process = await asyncio.create_subprocess_exec(
            *leashed(self._command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            # Ctrl-C in the terminal is for the runner alone.
            start_new_session=True,
            pass_fds=self._pass_fds,
        )
        self._process = process
        assert process.stdout is not None
        reading = asyncio.ensure_future(_copy_lines(process.stdout, self.log.write))
        watching = asyncio.ensure_future(self._tell_when_ready(process, is_first=is_first))
        try:
            code = await process.wait()
            # What it started may hold the pipe open for ever.
            await asyncio.wait({reading}, timeout=1)
            # And must not run beside what the next one starts.
            signal_group(process.pid, signal.SIGKILL)
            return code
        finally:
            for task in (reading, watching):
                task.cancel()
            await asyncio.gather(reading, watching, return_exceptions=True)

    async def _tell_when_ready(self, process: asyncio.subprocess.Process, *, is_first: bool) -> None:
        while not await self._is_ready():  # noqa: ASYNC110 - another process cannot set an event
            await asyncio.sleep(0.05)
        if process.returncode is None:
            self._ready.set()
            if not is_first:
                self._on_return(f"runs again, as process {process.pid}")

    async def _has_said(self, words: str) -> bool:
        has_lived = time.monotonic() - self._began
        return has_lived > SURELY_READY_SECONDS or any(words in line for line in self.log.last)


async def run_once(command: Sequence[str | Path], *, log: ChildLog, env: Mapping[str, str], cwd: Path) -> int:
    """Run a program to its end and return its code. Cancelling kills it."""
    process = await asyncio.create_subprocess_exec(
        *leashed(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        await _copy_lines(process.stdout, log.write)
        return await process.wait()
    finally:
        if process.returncode is None:
            signal_group(process.pid, signal.SIGKILL)


async def _copy_lines(source: asyncio.StreamReader, write: Callable[[str], None]) -> None:
    """Hand on each line; one that is too long comes in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    while chunk := await source.read(LONGEST_LINE):
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            write(line)
        if len(rest) > LONGEST_LINE:
            write(rest)
            rest = ""
    if rest:
        write(rest)


def describe_exit(code: int) -> str:
    """Say in words what an exit code means; negative is the number of a signal."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
