"""Start everything that the platform needs, watch over it, and stop it in order.

    valkey, mongodb, mail    at once
    seed                     runs to its end
    api, relay, workers      at once

What listens has its usual port where that is free. What ends by itself is started again. Data, logs and a
description of what runs are in one directory, which one runner at a time may use.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pymongo import MongoClient

from dev.console import ChildLog, Console
from dev.description import Account, Description, read_description, shown, table, write_description
from dev.mongo import MongoError, MongoServer
from dev.processes import Child, ChildDidNotStartError, describe_exit, run_once
from toril.embedded import EmbeddedServer
from toril.errors import ConfigurationError

__all__ = ["NAMES", "AlreadyRunningError", "Options", "Runner", "is_in_use"]

NAMES: Final = ("valkey", "mongodb", "mail", "seed", "api", "relay", "workers")
"""Of all that writes a log, in the order of starting."""

ROOT: Final = Path(__file__).parents[1]
VALKEY_PORT: Final = 6379
MONGO_PORT: Final = 27017
SMTP_PORT: Final = 1025
MAIL_PORT: Final = 8025
PLATFORM_PORT: Final = 8000

WATCH_SECONDS: Final = 0.25
LEFTOVER_SECONDS: Final = 10.0
"""How long what a killed runner has left behind may take to end."""

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What the command line says. A port of None is the usual one, or any other where that is busy."""

    dir: Path = ROOT / ".run"
    host: str = "127.0.0.1"
    port: int | None = None
    with_workers: bool = True


class AlreadyRunningError(Exception):
    """Another runner uses the directory. `description` is what it runs, once all of it does."""

    def __init__(self, dir: Path) -> None:
        super().__init__(f"{dir} is in use by another runner")
        self.description = read_description(dir)


class StartError(Exception):
    """Something needed cannot be started. The message is for people."""


class Server(Protocol):
    """A database that this process owns."""

    def start(self) -> object: ...
    def stop(self) -> None: ...
    @property
    def url(self) -> str: ...


@dataclass(frozen=True)
class Watched:
    """A started database, and how to see whether it lives."""

    name: str
    server: Server
    pid: Callable[[], int | None]
    """None as soon as it has ended."""


class Runner:
    """One run. Use it once."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options = options
        self._console = console
        self._stop = asyncio.Event()
        self._watched: list[Watched] = []
        self._children: list[Child] = []
        self._logs: dict[str, ChildLog] = {}
        self._notes: list[str] = []
        self._blocking: list[asyncio.Future[Any]] = []
        self._description: Description | None = None

    async def run(self) -> int:
        """Start all, report, wait for SIGINT or SIGTERM, stop all.

        Returns:
            0 after an orderly stop, 1 where something did not start.

        Raises:
            AlreadyRunningError: Nothing was touched.
        """
        self._options.dir.mkdir(parents=True, exist_ok=True)
        with _only_one(self._options.dir):
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._on_signal)
            starting = loop.create_task(self._start())
            stopping = loop.create_task(self._stop.wait())
            watching: list[asyncio.Task[None]] = []
            try:
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    watching = [loop.create_task(self._watch(watched)) for watched in self._watched]
                    await stopping
            except StartError as error:
                self._console.say(f"\n{self._console.bad('Not started.')} {error}\n")
                return 1
            finally:
                self._stop.set()
                for task in (starting, stopping, *watching):
                    task.cancel()
                await asyncio.gather(starting, stopping, *watching, return_exceptions=True)
                await self._end()
            return 0

    # --- starting -------------------------------------------------------------------------------

    async def _start(self) -> None:
        began = time.monotonic()
        console, dir = self._console, self._options.dir
        console.say(f"{console.strong('Starting Pharmacy Coverage')} with its data in {shown(dir)}")
        async with _together() as group:
            valkey = group.create_task(self._step("Valkey", self._start_valkey()))
            mongo = group.create_task(self._step("MongoDB", self._start_mongo()))
            mail = group.create_task(self._step("Mail catcher", self._start_mail()))
        redis_url, mongo_url, (mail_url, smtp_url) = valkey.result(), mongo.result(), mail.result()
        listening = self._listen()
        platform = f"http://{_reachable(self._options.host)}:{listening.getsockname()[1]}"
        description: Description = {
            "pid": os.getpid(),
            "dir": str(dir),
            "platform": platform,
            "mail": mail_url,
            "smtp": smtp_url,
            "redis": redis_url,
            "mongo": mongo_url,
            "processes": {},
            "accounts": [],
            "notes": self._notes,
        }
        env = _environment() | {
            "TORIL_URL": redis_url,
            "MONGODB_URL": mongo_url,
            "SMTP_URL": smtp_url,
            "PUBLIC_URL": platform,
            "INBOX_URL": mail_url,
        }
        await self._step("Demonstration", self._seed(env))
        description["accounts"] = await self._in_thread(lambda: _accounts(mongo_url))
        async with _together() as group:
            group.create_task(self._step("API", self._start_api(env, listening, platform)))
            group.create_task(self._step("Relay", self._start_relay(env)))
            if self._options.with_workers:
                group.create_task(self._step("Workers", self._start_workers(env)))
        self._description = description
        self._update_description()
        console.say(f"\n{console.good('Everything runs')}, after {time.monotonic() - began:.1f} s.\n")
        console.say(table(description, console))
        console.say(f"\n{console.faint('Ctrl-C stops all of it. What the processes say comes below.')}\n")
        for log in self._logs.values():
            log.console = console

    async def _step(self, title: str, work: Awaitable[T]) -> T:
        """Tell how long something took that is now done."""
        began = time.monotonic()
        result = await work
        seconds = self._console.faint(f"{time.monotonic() - began:4.1f} s")
        self._console.say(f"  {self._console.good('✓')} {title:<14}{seconds}")
        return result

    async def _start_valkey(self) -> str:
        if given := os.environ.get("TORIL_URL"):
            self._notes.append("TORIL_URL is set, so no Valkey was started.")
            return given
        server = await self._in_thread(self._open_valkey)
        self._watched.append(Watched("valkey", server, lambda: server.pid if server.is_running else None))
        self._link_log("valkey", server.dir / "server.log")
        return server.url

    def _open_valkey(self) -> EmbeddedServer:
        # The queues' usual port, so that `toril queue ls` needs no address.
        server = EmbeddedServer(self._options.dir / "valkey", "aof", preferred_port=VALKEY_PORT)
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while True:
            try:
                server.start()
            except ConfigurationError as error:
                if time.monotonic() > deadline or "already runs" not in str(error):
                    raise StartError(f"Valkey: {error}") from error
                time.sleep(0.1)
            else:
                if server.port != VALKEY_PORT:
                    self._note_other_port("Valkey", VALKEY_PORT, server.port)
                return server

    async def _start_mongo(self) -> str:
        server = MongoServer(self._options.dir / "mongo", preferred_port=MONGO_PORT)
        await self._in_thread(lambda: _open_mongo(server))
        if server.pid is None:
            self._notes.append("MONGODB_URL is set, so no MongoDB was started.")
        else:
            if server.port != MONGO_PORT:
                self._note_other_port("MongoDB", MONGO_PORT, server.port)
            self._watched.append(Watched("mongodb", server, lambda: server.pid))
            self._link_log("mongodb", server.log)
        return server.url

    async def _start_mail(self) -> tuple[str, str]:
        """Return the addresses of the page and of the SMTP server."""
        for is_last_try in (False, True):
            smtp_port = self._free_port("the mail catcher", SMTP_PORT)
            http_port = self._free_port("the mail catcher's page", MAIL_PORT)
            try:
                await self._start_child(
                    "mail",
                    [
                        *(sys.executable, "-m", "dev.mailcatcher", "--dir", self._options.dir / "mail"),
                        *("--smtp-port", str(smtp_port), "--http-port", str(http_port)),
                    ],
                    _environment(),
                    # Its own word: on these ports another runner's catcher might answer as well.
                    is_ready="page on http://",
                )
                break
            except StartError:
                # Somebody may have taken a port since we looked.
                if is_last_try:
                    raise
                self._children = [child for child in self._children if child.name != "mail"]
        return f"http://127.0.0.1:{http_port}", f"smtp://127.0.0.1:{smtp_port}"

    async def _seed(self, env: dict[str, str]) -> None:
        log = self._log("seed")
        code = await run_once([sys.executable, "-m", "pharmacy_coverage.seed"], log=log, env=env, cwd=ROOT)
        if code != 0:
            raise StartError(_explain("The demonstration", describe_exit(code), log))

    async def _start_api(self, env: dict[str, str], listening: socket.socket, url: str) -> None:
        await self._start_child(
            "api",
            [sys.executable, "-m", "dev.api", str(listening.fileno())],
            env,
            is_ready=lambda: _answers(url, "/healthz"),
            pass_fds=[listening.fileno()],
        )
        # While the API is away the socket stays open here, and whoever asks waits instead of being refused.
        self._listening = listening

    async def _start_relay(self, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "pharmacy_coverage.relay"]
        await self._start_child("relay", command, env, is_ready="relay: running")

    async def _start_workers(self, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "toril.cli", "worker", "pharmacy_coverage.worker:workers"]
        await self._start_child("workers", command, env, is_ready="ready, concurrency")

    async def _start_child(
        self,
        name: str,
        command: Sequence[str | Path],
        env: dict[str, str],
        *,
        is_ready: Callable[[], Awaitable[bool]] | str,
        pass_fds: Sequence[int] = (),
    ) -> None:
        log = self._log(name)
        child = Child(
            name,
            command,
            log=log,
            env=env,
            cwd=ROOT,
            is_ready=is_ready,
            on_end=lambda news: self._tell(name, self._console.bad(news)),
            on_return=lambda news: self._tell(name, self._console.good(news)),
            pass_fds=pass_fds,
        )
        self._children.append(child)
        try:
            await child.start()
        except ChildDidNotStartError as error:
            raise StartError(_explain(f"`{name}`", error.reason, log)) from error

    def _listen(self) -> socket.socket:
        """Open the platform's port: the wanted one or none; else the usual one or any."""
        host, wanted = self._options.host, self._options.port
        port = PLATFORM_PORT if wanted is None else wanted
        try:
            return socket.create_server((host, port), backlog=1024)
        except OSError as error:
            if wanted is not None or error.errno != errno.EADDRINUSE:
                raise StartError(f"The platform cannot listen on {host}:{port}: {error.strerror}.") from error
        listening = socket.create_server((host, 0), backlog=1024)
        self._note_other_port("the platform", PLATFORM_PORT, listening.getsockname()[1])
        return listening

    def _free_port(self, whose: str, usual: int) -> int:
        """Return the usual port, or any other if somebody has it."""
        try:
            with socket.create_server(("127.0.0.1", usual)):
                return usual
        except OSError:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                other: int = probe.getsockname()[1]
        self._note_other_port(whose, usual, other)
        return other

    def _note_other_port(self, whose: str, usual: int, other: int) -> None:
        self._notes.append(f"Port {usual} is busy, so {whose} has {other}.")

    def _log(self, name: str) -> ChildLog:
        log = self._logs[name] = ChildLog(name, self._options.dir / "logs" / f"{name}.log")
        return log

    def _link_log(self, name: str, log: Path) -> None:
        """Show a log that is kept elsewhere among the others."""
        link = self._options.dir / "logs" / f"{name}.log"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(log, link.parent))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run what blocks. If we are cancelled it goes on, and `_end` waits for it."""
        running = asyncio.ensure_future(asyncio.to_thread(work))
        self._blocking.append(running)
        return await asyncio.shield(running)

    # --- running --------------------------------------------------------------------------------

    async def _watch(self, watched: Watched) -> None:
        """Start a database again that has ended."""
        url, wait = watched.server.url, WATCH_SECONDS
        while True:
            await asyncio.sleep(wait)
            if watched.pid() is not None:
                continue
            self._tell(watched.name, self._console.bad("ended; starting it again"))
            try:
                await self._in_thread(watched.server.start)
            except (MongoError, ConfigurationError) as error:
                wait = min(wait * 2, 10)
                self._tell(watched.name, self._console.bad(f"does not start: {error}"))
            else:
                wait = WATCH_SECONDS
                self._tell(watched.name, self._console.good(f"runs again, as process {watched.pid()}"))
                if watched.server.url != url:
                    # Its port was taken in that moment; the others hold the old address.
                    self._tell(watched.name, self._console.bad("has another port now: please start all anew"))

    def _tell(self, name: str, news: str) -> None:
        if not self._stop.is_set():
            self._console.line(name, news)
            self._update_description()

    def _update_description(self) -> None:
        """Keep `running.json` true; it appears when all of it runs."""
        if self._description is not None:
            pids = {watched.name: watched.pid() for watched in self._watched}
            pids |= {child.name: child.pid for child in self._children}
            self._description["processes"] = {name: pid for name, pid in pids.items() if pid is not None}
            write_description(self._options.dir, self._description)

    # --- stopping -------------------------------------------------------------------------------

    def _on_signal(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        # Twice: somebody does not want to wait.
        for child in self._children:
            child.kill()
        for watched in self._watched:
            pid = watched.pid()
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        os._exit(130)

    async def _end(self) -> None:
        """Stop what uses the servers, then the servers."""
        began = time.monotonic()
        for log in self._logs.values():
            log.console = None
        self._console.say("\nStopping; a second Ctrl-C kills at once ...")
        await asyncio.gather(*(child.stop() for child in self._children if child.name != "mail"))
        await asyncio.gather(*(child.stop() for child in self._children))
        await asyncio.gather(*self._blocking, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(watched.server.stop) for watched in self._watched))
        for log in self._logs.values():
            log.close()
        (self._options.dir / "running.json").unlink(missing_ok=True)
        seconds = time.monotonic() - began
        self._console.say(f"Stopped after {seconds:.1f} s; the data stays in {shown(self._options.dir)}")


def is_in_use(dir: Path) -> bool:
    """Does a runner own the directory?"""
    try:
        with (dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _only_one(dir: Path) -> Generator[None]:
    """Own the directory. The kernel gives it up for a runner that is killed."""
    with (dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(dir) from error
        # A killed runner's; nothing of it is true any more.
        (dir / "running.json").unlink(missing_ok=True)
        yield


def _open_mongo(server: MongoServer) -> None:
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while True:
        try:
            server.start()
            return
        except MongoError as error:
            if time.monotonic() > deadline or "Another MongoDB runs" not in str(error):
                raise StartError(str(error)) from error
            time.sleep(0.1)


@contextlib.asynccontextmanager
async def _together() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group whose first failure comes out as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def _accounts(mongo_url: str) -> list[Account]:
    """The seeded people, in the order of the sign-in page."""
    # Imported late: the runner is to say its first words at once.
    from pharmacy_coverage.seed import PASSWORD
    from pharmacy_coverage.settings import Settings

    client: MongoClient[dict[str, Any]] = MongoClient(mongo_url, serverSelectionTimeoutMS=5000)
    with client:
        users = client[Settings().mongodb_database].users.find({"demo": True}).sort("order", 1)
        return [{"email": user["email"], "password": PASSWORD, "who": user["blurb"]} for user in users]


async def _answers(url: str, path: str) -> bool:
    """Does a web server say 2xx there?"""
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
                )
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return len(words) > 1 and words[1].startswith(b"2")


def _environment() -> dict[str, str]:
    """What all children get."""
    return {"ENVIRONMENT": "development", **os.environ, "PYTHONUNBUFFERED": "1"}


def _reachable(host: str) -> str:
    """A host that a browser can open, for one to listen on."""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _explain(what: str, reason: str, log: ChildLog) -> str:
    said = "".join(f"\n    {line}" for line in log.last)
    return f"{what} {reason}. Its log is {shown(log.path)}; it ends with:{said or ' nothing'}"
