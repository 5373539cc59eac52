"""The process between an embedded server and the processes that use it.

`toril.embedded` runs this file as a program. It starts the server, writes down where it listens, and stops it
when nobody uses it any more. It imports nothing but the standard library, so that it starts in milliseconds.

Who uses the server is asked of the kernel: every user holds a shared lock on `users.lock`, the keeper waits
for the exclusive one, and a killed process lets go of its lock like any other. Asking the kernel to signal
the server when its parent ends (PR_SET_PDEATHSIG) would not do in the user's process: that signal follows
the *thread* that forked, and comes as soon as that thread is done. The keeper's only forking thread is its
main one, so here it does no harm, and a killed keeper does not leave its server behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["IN_USE", "main"]

IN_USE = 75
"""Exit code: another keeper serves this directory."""

LOG_LIMIT_BYTES = 4 * 1024 * 1024
STOP_SECONDS = 30.0
"""How long a server may take to save its data before it is killed."""

# Where Debian, Fedora and Alpine have it; asking the linker's cache would start a program.
_JEMALLOC = tuple(
    f"/usr/{library}/libjemalloc.so.2" for library in (f"lib/{os.uname().machine}-linux-gnu", "lib64", "lib")
)


def main(specification: str) -> int:
    """Run one server until nobody uses it, or SIGTERM.

    Args:
        specification: A JSON object: `binary`, `directory`, `state` (what to publish in `server.json`,
            beside the two process ids), `remove` (delete the directory at the end), `restart` (revive a
            server that dies).

    Returns:
        The server's exit code, or `IN_USE`.
    """
    spec: dict[str, Any] = json.loads(specification)
    directory = Path(spec["directory"])
    serving = open(directory / "server.lock", "a")  # noqa: SIM115 - held until this process ends
    try:
        fcntl.lockf(serving, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return IN_USE
    keeper = Keeper(directory, spec)
    code = keeper.run()
    (directory / "server.json").unlink(missing_ok=True)
    # If the server ended by itself, its owner is there to read the log, and then cleans up.
    if spec["remove"] and keeper.is_stopping:
        shutil.rmtree(directory, ignore_errors=True)
    return code


class Keeper:
    def __init__(self, directory: Path, spec: dict[str, Any]) -> None:
        self._directory = directory
        self._spec = spec
        # No `Event`: a second signal may come while the handler of the first one holds its lock.
        self.is_stopping: bool = False
        self._server: subprocess.Popen[bytes] | None = None
        # Loaded here, since the child may do next to nothing between fork and exec.
        self._libc = ctypes.CDLL(None)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        code = self._serve_once(first=True)
        while self._spec["restart"] and not self.is_stopping and code != 1:
            # Exit code 1 is the server's own word that it cannot run; anything else was a crash or a kill.
            code = self._serve_once(first=False)
        return code

    def _serve_once(self, *, first: bool) -> int:
        started = time.monotonic()
        log = self._directory / "server.log"
        too_long = log.exists() and log.stat().st_size > LOG_LIMIT_BYTES
        with open(log, "wb" if too_long else "ab") as output:
            try:
                self._server = subprocess.Popen(
                    [self._spec["binary"], str(self._directory / "server.conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._directory,
                    env=_environment(),
                    preexec_fn=self._follow_keeper,
                )
            except OSError as error:
                # No program, or none for this machine: told where the server would have told it.
                output.write(f"{error}\n".encode(errors="replace"))
                return 1
        self._publish(self._server.pid)
        if first:
            threading.Thread(target=self._await_last_user, daemon=True).start()
        if self.is_stopping:  # the signal came before there was a process to stop
            self._stop()
        code = self._server.wait()
        if not self.is_stopping and time.monotonic() - started < 1:
            time.sleep(0.2)  # a server that dies at once is not revived in a tight loop
        return code

    def _publish(self, pid: int) -> None:
        """Write `server.json` so that a reader sees the old one or the new one, never half of it."""
        state = {**self._spec["state"], "pid": pid, "keeper_pid": os.getpid()}
        draft = self._directory / "server.json.new"
        draft.write_text(json.dumps(state))
        draft.chmod(0o600)
        draft.replace(self._directory / "server.json")

    def _await_last_user(self) -> None:
        with open(self._directory / "users.lock", "r+") as users:
            fcntl.lockf(users, fcntl.LOCK_EX)
            self._stop()
            # Held until the process ends: who comes now waits, and then starts a server of its own.
            threading.Event().wait()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self.is_stopping = True
        server = self._server
        if server is None:
            return
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        timer = threading.Timer(STOP_SECONDS, server.kill)
        timer.daemon = True
        timer.start()

    def _follow_keeper(self) -> None:
        if sys.platform == "linux":
            self._libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _environment() -> dict[str, str]:
    """Let the server allocate with jemalloc where the system has it, as servers from a package do.

    The wheel's is built for the C library's allocator, which needs a third more time for each job of a million.
    """
    environment = dict(os.environ)
    if sys.platform == "linux" and "LD_PRELOAD" not in environment:
        found = next(filter(os.path.exists, _JEMALLOC), None)
        if found is not None:
            environment["LD_PRELOAD"] = found
    return environment


if __name__ == "__main__":
    # Not an argument: those of a process are for everybody to see, and a URL may hold a password.
    sys.exit(main(sys.stdin.read()))
