"""Who uses a directory in which an embedded server may run: presences, locks, and what a dead user left over.

Three lock files in the directory, all of them POSIX record locks: those belong to a process, are not
inherited by its forks, and end with it, however it ends.

    start.lock   exclusive, by who is starting or joining
    users.lock   shared, by each process that uses the server; exclusive, by a keeper that found no user left
    server.lock  exclusive, by the keeper

Their trap: a process loses its lock as soon as it closes *any* file handle of that file. So there is one
handle on users.lock for each process and directory, and `_here` guards them all.

`embedded.py` starts and stops the servers, and says which directory a URL means.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypedDict, cast
from urllib.parse import unquote, urlsplit

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .embedded import Persistence

__all__ = [
    "POLL_SECONDS",
    "START_SECONDS",
    "State",
    "answers",
    "end_leftover",
    "enter",
    "is_served",
    "joined",
    "leave",
    "read_state",
    "starting",
]

START_SECONDS: Final = 60.0
"""How long a server may take to start, or to end, before somebody gives up on it."""
POLL_SECONDS: Final = 0.01


class State(TypedDict):
    """`server.json`: what a process needs to join."""

    pid: int
    keeper_pid: int
    port: int
    url: str
    persistence: Persistence


_here = threading.Lock()
_presences: dict[Path, _Presence] = {}


class _Presence:
    """This process's lock on one users.lock, and how many servers and leases stand on it."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.count = 0


def enter(directory: Path) -> None:
    """Count as a user of `directory`, from before the server starts. Waits while the last one there ends."""
    import fcntl

    with _here:
        presence = _presences.get(directory)
        if presence is None:
            file = open(directory / "users.lock", "a+")  # noqa: SIM115 - held for as long as the presence
            _wait_for(file, fcntl.LOCK_SH, f"{directory}: the server that runs here does not end")
            presence = _presences[directory] = _Presence(file)
        presence.count += 1


def leave(directory: Path) -> None:
    """Count as a user once less; the last one out lets go of the lock, which ends a shared server."""
    with _here:
        presence = _presences[directory]
        presence.count -= 1
        if presence.count == 0:
            del _presences[directory]
            presence.file.close()


_starting_here = threading.Lock()


@contextlib.contextmanager
def starting(directory: Path) -> Generator[None]:
    """Be the only one, in all processes, who starts or joins a server in `directory`."""
    import fcntl

    with _starting_here, open(directory / "start.lock", "a") as file:
        _wait_for(
            file, fcntl.LOCK_EX, f"{directory}: somebody else is starting a server here and does not finish"
        )
        yield


def _wait_for(file: IO[str], kind: int, complaint: str) -> None:
    import fcntl

    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                file.close()
                raise ConfigurationError(complaint) from None
            time.sleep(POLL_SECONDS)
        else:
            return


def is_served(directory: Path) -> bool:
    """Does a keeper live here? Ask only under `starting`."""
    import fcntl

    with open(directory / "server.lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def joined(directory: Path) -> State | None:
    """Return the state of the server that runs here, once it answers. None if none does."""
    deadline = time.monotonic() + START_SECONDS
    while is_served(directory):
        state = read_state(directory)
        if state is not None and answers(state):
            return state
        if time.monotonic() > deadline:
            raise ConfigurationError(f"{directory}: a server runs here but does not answer; see server.log")
        time.sleep(POLL_SECONDS)
    return None


def end_leftover(directory: Path) -> State | None:
    """End a server whose keeper is gone, and return what was written about it.

    Its keeper was killed, or the machine went down. On Linux the server went with it; elsewhere it may
    still run, and would write to the same files as ours.
    """
    state = read_state(directory)
    if state is None:
        return None
    deadline = time.monotonic() + START_SECONDS
    # Process ids are used again: only a server that says itself that it is this one is touched.
    while _info(state).get("process_id") == str(state["pid"]):
        if time.monotonic() > deadline:
            raise ConfigurationError(f"{directory}: a leftover server (process {state['pid']}) does not end")
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], signal.SIGTERM)
        time.sleep(POLL_SECONDS * 5)
    (directory / "server.json").unlink(missing_ok=True)
    return state


def read_state(directory: Path) -> State | None:
    """Return what is written about the server of this directory; None if nothing readable is."""
    try:
        return cast("State", json.loads((directory / "server.json").read_text()))
    except (OSError, ValueError):
        return None


def answers(state: State) -> bool:
    """Is the server that `state` names up, with its data loaded? Another one on its port does not count."""
    facts = _info(state)
    return facts.get("process_id") == str(state["pid"]) and facts.get("loading") == "0"


def _info(state: State) -> dict[str, str]:
    """Ask the server for its INFO, without a client library. Empty if nothing of the kind answers."""
    password = unquote(urlsplit(state["url"]).password or "")
    try:
        with socket.create_connection(("127.0.0.1", state["port"]), timeout=2) as link:
            if password:
                words = (b"AUTH", password.encode())
                link.sendall(b"*2\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
            # QUIT makes the server end its answer by closing, so that there is nothing to parse.
            link.sendall(b"INFO\r\nQUIT\r\n")
            answer = bytearray()
            while chunk := link.recv(65536):
                answer += chunk
    except OSError:
        return {}
    lines = answer.decode(errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines) if value}


def _after_fork_in_child() -> None:
    """A fork has none of its parent's locks, and so none of its shares."""
    global _here, _starting_here
    _here, _starting_here = threading.Lock(), threading.Lock()
    _presences.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
