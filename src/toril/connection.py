"""From a URL to connections. Only this module builds a client; everyone else is handed one.

A `Connection` is a handle that many queues and workers may share. Behind it, per event loop, is one
client of `redis-py`, which knows how to reach the server (TCP, TLS, a Unix socket) and how to speak
its protocol. What toril decides itself is what happens around a call: its deadline, that nothing is
retried behind our back, and what an error means.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError as RedisAuthenticationError,
)
from redis.exceptions import (
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from .clock import ServerClock
from .errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    ScriptForgottenError,
    ServerRefusedError,
    ServerUnreachableError,
    TorilError,
)

if TYPE_CHECKING:
    from .embedded import EmbeddedLease

__all__ = ["DEFAULT_URL", "Connection", "Lane"]

DEFAULT_URL: Final = "redis://localhost:6379"
_SCHEMES: Final = ("redis", "rediss", "unix", "embedded")
_CONNECT_TIMEOUT: Final = 5.0
# Scripts answer in milliseconds. A server that is silent for this long is taken for dead.
_CALL_TIMEOUT: Final = 15.0
# Calls that are made at once beyond this number wait for a free connection.
_MOST_LANES: Final = 32
# A connection that has been idle for so long is looked at before it is used: the server may have gone.
_FRESH_FOR: Final = 1.0

logger = logging.getLogger("toril.connection")


class Connection:
    """A server, by its URL; opened when it is first used, on whatever event loop that is.

    Args:
        url: `redis://`, `rediss://` (TLS), `unix://`, or `embedded://`; without it `TORIL_URL`, else
            `redis://localhost:6379`.

    Raises:
        ConfigurationError: The URL is none of these.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url or os.environ.get("TORIL_URL") or DEFAULT_URL
        scheme = urlsplit(self._url).scheme
        if scheme not in _SCHEMES:
            raise ConfigurationError(
                f"cannot connect to {safe_url(self._url)!r}: a URL begins with "
                f"{', '.join(f'{known}://' for known in _SCHEMES)}"
            )
        self.clock: ServerClock = ServerClock()
        """The server's time; exact once the connection has been used."""
        self._lease: EmbeddedLease | None = None
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopClients] = WeakKeyDictionary()

    @classmethod
    def of(cls, connection: str | Connection | None) -> Connection:
        """Return the connection itself, or a new one to a URL."""
        return connection if isinstance(connection, Connection) else cls(connection)

    @classmethod
    def from_url(cls, url: str) -> Connection:
        """Return a connection to this URL."""
        return cls(url)

    @property
    def safe_url(self) -> str:
        """The URL without its password, fit for messages and logs."""
        return safe_url(self._url)

    def __repr__(self) -> str:
        return f"Connection({self.safe_url!r})"

    async def execute(self, *args: Any) -> Any:
        """Send one command and return its answer, on a connection that nobody else uses meanwhile.

        Raises:
            ServerUnreachableError: No connection could be made; nothing has happened.
            ConnectionLostError: It broke before the answer; the change may or may not have happened.
            AuthenticationError: The server refused the user, the password or the command.
            ServerRefusedError: The server answered with an error.
        """
        async with self._idle_lane() as lane:
            return await lane.execute(*args)

    async def execute_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send several commands at once and return their answers in order. Others' may come in between.

        Raises:
            As `execute`; of several errors, the first.
        """
        async with self._idle_lane() as lane:
            return await lane.execute_all(commands)

    def lane(self, *, name: str | None = None) -> Lane:
        """Return a connection of one's own, not opened yet, for one call at a time.

        Args:
            name: What the server calls it, see CLIENT SETNAME. A name that it refuses is done without.
        """
        pool: Any = self._of_loop().client.connection_pool
        return Lane(self, pool.make_connection(), name)

    @property
    def client(self) -> redis.asyncio.Redis:
        """The client of the running event loop, for reading. It decodes answers to text."""
        return self._of_loop().client

    def sync_client(self) -> redis.Redis:
        """Return a new blocking client, for a thread that must not depend on an event loop."""
        url = self._real_url()
        return redis.Redis.from_url(url, **_settings(url, Retry(NoBackoff(), 0)))  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownArgumentType]

    async def learn_time(self) -> None:
        """Measure the offset to the server's clock, once per event loop.

        Raises:
            TorilError: As `execute`.
        """
        clients = self._of_loop()
        if not clients.knows_time:
            asked = time.time()
            seconds, microseconds = await self.execute("TIME")
            self.clock.learn(asked, time.time(), int(seconds), int(microseconds))
            clients.knows_time = True

    async def close(self) -> None:
        """Close what this event loop has opened. Safe to call twice."""
        clients = self._clients.pop(asyncio.get_running_loop(), None)
        if clients is not None:
            clients.is_closed = True
            for lane in clients.idle:
                await lane.close()
            await clients.client.aclose()
        if self._lease is not None and not self._clients:
            self._lease.release()
            self._lease = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def _idle_lane(self) -> AsyncGenerator[Lane]:
        clients = self._of_loop()
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                await clients.free.acquire()
        except TimeoutError as error:
            raise ServerUnreachableError(
                f"{self.safe_url}: all {_MOST_LANES} connections have been busy for {_CALL_TIMEOUT:g} s"
            ) from error
        lane = clients.idle.pop() if clients.idle else self.lane()
        try:
            yield lane
        finally:
            clients.free.release()
            if clients.is_closed:
                await lane.close()
            elif lane.is_open:
                clients.idle.append(lane)

    def _of_loop(self) -> _LoopClients:
        loop = asyncio.get_running_loop()
        clients = self._clients.get(loop)
        if clients is None:
            # Redis.from_url reads the options that a URL may carry, such as the database or certificates.
            url = self._real_url()
            client = redis.asyncio.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
                url, **_settings(url, AsyncRetry(NoBackoff(), 0))
            )
            clients = self._clients[loop] = _LoopClients(client)
        return clients

    def _real_url(self) -> str:
        if not self._url.startswith("embedded:"):
            return self._url
        if self._lease is None:
            from .embedded import acquire

            self._lease = acquire(self._url)
        return self._lease.url


class _LoopClients:
    """What one event loop has opened."""

    __slots__ = ("client", "free", "idle", "is_closed", "knows_time")

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self.idle: list[Lane] = []
        self.free = asyncio.Semaphore(_MOST_LANES)
        self.is_closed = False
        self.knows_time = False


class Lane:
    """One connection, for one call at a time. It opens itself, again and again if need be.

    Calls that are in flight at once each want a lane of their own: on a shared one the later answer
    waits for the earlier.
    """

    def __init__(self, owner: Connection, connection: Any, name: str | None = None) -> None:
        self._owner = owner
        self._connection = connection
        # The client's own deadline rests on `asyncio.wait_for`, which before Python 3.12 can swallow a
        # cancellation. `execute` has one deadline for the whole call instead.
        connection.socket_timeout = None
        self._name = name
        self._used = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is a socket, as far as we know."""
        return bool(self._connection.is_connected)

    async def execute(self, *args: Any, timeout: float = _CALL_TIMEOUT) -> Any:
        """Send one command and wait for its answer.

        Args:
            args: The command and its arguments.
            timeout: How many seconds the server may take. A command that blocks needs more than it blocks for.

        Raises:
            TorilError: As `Connection.execute`.
        """
        async with self._call(timeout) as connection:
            await connection.send_packed_command(connection.pack_command(*args))
            return await connection.read_response()

    async def execute_all(
        self, commands: Sequence[tuple[Any, ...]], *, timeout: float = _CALL_TIMEOUT
    ) -> list[Any]:
        """Send several commands at once; see `Connection.execute_all`."""
        async with self._call(timeout) as connection:
            await connection.send_packed_command(connection.pack_commands(commands))
            answers: list[Any] = []
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    # The answers behind it have to be read all the same.
                    answers.append(error)
            for answer in answers:
                if isinstance(answer, ResponseError):
                    raise answer
            return answers

    @asynccontextmanager
    async def _call(self, timeout: float) -> AsyncGenerator[Any]:
        connection = self._connection
        if not connection.is_connected:
            await self._open()
        elif time.monotonic() - self._used > _FRESH_FOR:
            await self._look()
        try:
            async with asyncio.timeout(timeout):
                yield connection
        except RedisError as error:
            raise self._explain(error, ConnectionLostError) from error
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            raise ConnectionLostError(
                f"{self._owner.safe_url}: no answer within {timeout:g} s; the connection is given up"
            ) from error
        finally:
            self._used = time.monotonic()

    async def close(self) -> None:
        """Close the socket; a call that is in flight on it fails with `ConnectionLostError`."""
        await self._connection.disconnect(nowait=True)

    async def _open(self) -> None:
        try:
            await self._connection.connect()
            if self._name is not None:
                await self._set_name(self._name)
        except RedisError as error:
            raise self._explain(error, ServerUnreachableError) from error

    async def _set_name(self, name: str) -> None:
        await self._connection.send_command("CLIENT", "SETNAME", name)
        try:
            await self._connection.read_response()
        except ResponseError:
            logger.warning(
                "%s: the server refuses the connection name %r; going on without", self._owner.safe_url, name
            )

    async def _look(self) -> None:
        """Reopen a socket that the server has closed while nobody was looking."""
        try:
            is_stale = await self._connection.can_read()
        except RedisError:
            is_stale = True
        if is_stale:
            await self._connection.disconnect(nowait=True)
            await self._open()

    def _explain(self, error: RedisError, lost: type[ConnectionLostError]) -> TorilError:
        return explain(error, self._owner.safe_url, lost)


def explain(
    error: RedisError, where: str, lost: type[ConnectionLostError] = ConnectionLostError
) -> TorilError:
    """Return what a client's error means to toril.

    Args:
        error: What redis-py raised.
        where: The server, without its password.
        lost: What a broken connection means at this point.
    """
    if isinstance(error, NoScriptError):
        return ScriptForgottenError(f"{where}: {error}")
    if isinstance(error, (RedisAuthenticationError, AuthorizationError)) or _is_about_password(error):
        return AuthenticationError(
            f"{where}: the server refuses the user name or password ({error}); check the URL: redis://user:password@host"
        )
    if isinstance(error, NoPermissionError):
        return AuthenticationError(f"{where}: the ACL of this user lacks a right ({error})")
    if isinstance(error, BusyLoadingError):
        return ServerRefusedError(f"{where}: the server is loading its data; try again in a moment")
    if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
        if lost is ServerUnreachableError:
            return ServerUnreachableError(
                f"cannot reach {where} ({_first_line(error)}); is the server running, and is the URL right? "
                "`connection=` or TORIL_URL sets it, `toril doctor` looks into it"
            )
        return lost(f"{where}: connection lost before the answer came ({_first_line(error)})")
    if isinstance(error, ResponseError):
        return ServerRefusedError(f"{where}: {_first_line(error)}")
    return ServerRefusedError(f"{where}: {type(error).__name__}: {_first_line(error)}")


def _is_about_password(error: RedisError) -> bool:
    return str(error).startswith(
        ("WRONGPASS", "NOAUTH", "invalid username-password", "Authentication required")
    )


def _first_line(error: BaseException) -> str:
    # Errors of scripts go on with the script's own lines.
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def safe_url(url: str) -> str:
    """Return a URL without its password, its user name and its query, which may hold secrets too."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    # Not urlunsplit, which makes unix:/path of unix:///path.
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else "(not a URL)"


def _settings(url: str, retry: Any) -> dict[str, Any]:
    # A Unix socket has nothing to keep alive, and its class of connection refuses the option.
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return {
        **keepalive,
        "decode_responses": True,
        # As Node reads it: what is no UTF-8 is replaced. One spoilt value would make every fetch fail.
        "encoding_errors": "replace",
        # Answers of the two protocol versions differ in type.
        "protocol": 2,
        # What may be tried again depends on the script, so nothing is behind our back.
        "retry": retry,
        "retry_on_error": [],
        "socket_connect_timeout": _CONNECT_TIMEOUT,
        "socket_timeout": _CALL_TIMEOUT,
        "health_check_interval": 0,
    }
