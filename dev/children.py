"""Start child processes that cannot outlive their owner.

Every child leads a session of its own, so that Ctrl-C in the terminal reaches only the owner, which then
stops its children in order. On Linux the kernel kills a child whose owner is gone, however it went; elsewhere
only an orderly stop is covered.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO

__all__ = ["end", "leashed", "signal_group", "spawn"]

# Runs between fork and the program itself. Asking the kernel from here, not in a `preexec_fn`, keeps the fork
# safe in an owner that has threads.
_LEASH = """
import ctypes, os, signal, sys
owner = int(sys.argv[1])
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != owner:  # It died before we asked, so nobody would tell us.
    os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"{sys.argv[2]}: {error.strerror}", file=sys.stderr)
    os._exit(127)
"""


class _Forker:
    """One thread that lives as long as the process, and does all the forking.

    The kernel's "parent" in "kill me when my parent dies" is the thread that forked. A child started from a
    thread of some pool would be killed when the pool tires of that thread.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[
            tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]
        ]
        self._work = queue.SimpleQueue()
        threading.Thread(target=self._run, name="dev-forker", daemon=True).start()

    def fork(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        answer: Future[subprocess.Popen[bytes]] = Future()
        self._work.put((start, answer))
        return answer.result()

    def _run(self) -> None:
        while True:
            start, answer = self._work.get()
            try:
                answer.set_result(start())
            except BaseException as error:
                answer.set_exception(error)


_forker: _Forker | None = None
_forker_lock = threading.Lock()


def spawn(
    command: Sequence[str | Path],
    *,
    output: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, killed by the kernel (on Linux) when this process ends.

    `output` receives both standard output and standard error. A program that does not exist is a child that
    ends with 127, as in a shell.
    """
    global _forker
    with _forker_lock:
        if _forker is None:
            _forker = _Forker()
    arguments = leashed(command)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )

    return _forker.fork(start)


def leashed(command: Sequence[str | Path]) -> list[str]:
    """Return a command that becomes `command`, and ends with the thread that starts it (on Linux).

    For asyncio's subprocesses, if the event loop runs in the main thread.
    """
    arguments = [str(part) for part in command]
    if sys.platform == "linux":
        arguments = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *arguments]
    return arguments


def signal_group(leader: int, number: int) -> None:
    """Send a signal to a child and to what it started. Nothing happens where all of them are gone."""
    # The group outlives its leader while a grandchild runs, so a child that has ended is signalled too. Its
    # number cannot belong to strangers: a process id is not given out again while a group still bears it, and
    # an empty group is a ProcessLookupError.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def end(child: subprocess.Popen[bytes], *, grace: float) -> int:
    """Ask the child to stop, wait up to `grace` seconds, then kill what is left. Returns its exit code."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    if child.poll() is None:
        signal_group(child.pid, signal.SIGKILL)
    return child.wait()
