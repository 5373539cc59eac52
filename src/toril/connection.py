"""From a URL to connections. Only this module builds a client; everyone else is handed one.

A `Connection` is a handle that many queues and workers may share. Behind it, per event loop, is one
client of `redis-py`, which knows how to reach the server (TCP, TLS, a Unix socket) and how to speak
its protocol. What toril decides itself is what happens around a call: its deadline, that nothing is
retried behind our back, and what an error means.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from ._answers import ask
from ._clients import MOST_IDLE, MOST_LANES, LoopClients, Turns, in_turn
from ._closing import Closing
from ._faults import explain, first_line, safe_url
from ._per_loop import PerLoop
from ._sentinels import Address
from ._topology import Credentials, Place, make_async, make_sync, settings
from ._wire import Done, Wire, pack
from .clock import ServerClock
from .errors import (
    ConfigurationError,
    ConnectionLostError,
    ServerUnreachableError,
    TorilError,
)

if TYPE_CHECKING:
    from ._cluster import Router
    from .embedded import EmbeddedLease

__all__ = ["CALL_TIMEOUT", "DEFAULT_URL", "SCRIPT_TIMEOUT", "Connection", "Lane"]

DEFAULT_URL: Final = "redis://localhost:6379"
_CONNECT_TIMEOUT: Final = 5.0
# Scripts answer in milliseconds. A server that is silent for this long is taken for dead.
CALL_TIMEOUT: Final = 15.0
SCRIPT_TIMEOUT: Final = 5.0
"""The same for calls that are safe to repeat: they are given up sooner, since nothing is lost by that."""
# A connection that has been idle for so long is looked at before it is used: the server may have gone.
_FRESH_FOR: Final = 1.0
# One of many that has been idle for so long is not needed.
_STALE_AFTER: Final = 10.0
# How often the server is asked for its time when it is first used.
_TIMES_ASKED: Final = 3
# Reading the socket, its end, the news of it: one turn of the event loop each.
_TURNS_TO_HEAR: Final = 3

logger = logging.getLogger("toril.connection")


class Connection(Closing):
    """A server, by its URL; opened when it is first used, on whatever event loop that is.

    Args:
        url: `redis://`, `unix://`, `embedded://`, `redis+sentinel://h1,h2/service/0` or `redis+cluster://h1,h2`;
            with `rediss` for `redis`, by TLS. Without it `TORIL_URL`, else `redis://localhost:6379`.
        credentials: Returns (user name, password), in place of those in the URL. It is asked whenever a connection
            is opened, from any thread, so that passwords can be rotated.

    Raises:
        ConfigurationError: The URL is none of these, or asks for TLS that verifies nothing.
    """

    def __init__(self, url: str | None = None, *, credentials: Credentials | None = None) -> None:
        if url is not None and not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"a connection is a URL, such as {DEFAULT_URL!r}, or a toril.Connection, not {type(url).__name__}"
            )
        self._url = url or os.environ.get("TORIL_URL") or DEFAULT_URL
        self._credentials = credentials
        self._place = Place.of(self._url, safe_url(self._url))
        self._router: Router | None = None
        if self._place.kind == "cluster":
            from ._cluster import Router

            self._router = Router(
                self._place, lambda node: Connection(node, credentials=credentials), self.safe_url
            )
        self.clock: ServerClock = ServerClock()
        """The server's time; exact once the connection has been used."""
        self._lease: EmbeddedLease | None = None
        self._clients: PerLoop[LoopClients] = PerLoop()

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
        if self._router is not None:
            return await self._router.execute(args)
        clients = self._of_loop()
        lane = await self._take(clients)
        try:
            return await lane.execute(*args)
        finally:
            self._give_back(clients, lane)

    async def ask_together(self, *question: Any) -> Any:
        """As `execute`, for what many ask at once: who comes while it is on its way gets the same answer."""
        asking = self._of_loop().asking
        task = asking.get(question)
        if task is None:
            task = asking[question] = asyncio.get_running_loop().create_task(self.execute(*question))
            # They may all be gone by then, and its error is no news to anybody.
            task.add_done_callback(lambda task: (asking.pop(question), task.cancelled() or task.exception()))
        return await asyncio.shield(task)

    async def execute_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send several commands at once and return their answers in order. Others' may come in between.

        Raises:
            As `execute`; of several errors, the first.
        """
        if self._router is not None:
            return await self._router.execute_all(commands)
        clients = self._of_loop()
        lane = await self._take(clients)
        try:
            return await lane.execute_all(commands)
        finally:
            self._give_back(clients, lane)

    async def execute_then(
        self, first: tuple[Any, ...], second: tuple[Any, ...], *, timeout: float
    ) -> list[Any]:
        """Send two commands on one connection; return both answers, an error of the second in its place.

        Args:
            timeout: How many seconds the server may take.

        Raises:
            As `execute`, of the first.
        """
        if self._router is not None:
            return await self._router.execute_then(first, second, timeout)
        clients = self._of_loop()
        lane = await self._take(clients)
        try:
            return await lane.execute_then(first, second, timeout=timeout)
        finally:
            self._give_back(clients, lane)

    def take_idle(self, loop: asyncio.AbstractEventLoop) -> tuple[Lane, Callable[[], None]] | None:
        """Take a connection that is open and idle, for calls behind each other; None if there is none just now.

        Args:
            loop: The running one. Asking for it is a system call before Python 3.12.

        Returns:
            The connection, and what gives it back once all its calls are answered.
        """
        if self._router is not None:
            return None
        clients = self._clients.get(loop)
        if clients is not None and clients.idle and clients.idle[-1].is_fresh and clients.turns.take_now():
            lane = clients.idle.pop()
            return lane, functools.partial(self._give_back, clients, lane)
        return None

    def lane(self, *, name: str | None = None) -> Lane:
        """Return a connection of one's own, not opened yet, for one call at a time.

        Args:
            name: What the server calls it, see CLIENT SETNAME. A name that it refuses is done without.
        """
        if self._router is not None:
            return self._router.lane(name)
        clients = self._of_loop()
        return self._new_lane(clients, name, clients.openings)

    def _new_lane(self, clients: LoopClients, name: str | None, openings: Turns | None) -> Lane:
        pool: Any = clients.client.connection_pool
        lane = Lane(self, pool.make_connection, name, openings)
        if clients.sentinels is not None:
            clients.lanes.add(lane)
        return lane

    @property
    def client(self) -> redis.asyncio.Redis:
        """The client of the running event loop, for reading. It decodes answers to text. A cluster has none."""
        return self._of_loop().client

    async def nodes(self) -> list[Connection]:
        """Return a connection to each primary: of a cluster several, else this one itself."""
        return [self] if self._router is None else await self._router.nodes()

    def sync_client(self, key: str = "", *, timeout: float = CALL_TIMEOUT) -> redis.Redis:
        """Return a new blocking client, for a thread that must not depend on an event loop.

        Args:
            key: What it will be asked for; on a cluster, that says which node it is for.
            timeout: How many seconds the server may take.
        """
        if self._router is not None:
            return self._router.sync_client(key, timeout)
        place = self._real_place()
        how = settings(place.url, min(timeout, _CONNECT_TIMEOUT), timeout)
        return make_sync(place, how, self._credentials)

    def identity(self, key: str) -> object:
        """Return what is equal for connections that reach the same server for this key, in the same way."""
        return (self._url, self._credentials, None if self._router is None else key)

    def suspect(self) -> None:
        """Look anew where things are: a client that `sync_client` has made met a fault, or is over it."""
        if self._router is not None:
            self._router.suspect()
        elif self._place.kind == "sentinel":
            for loop, clients in list(self._clients.items()):
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(clients.look)

    async def learn_time(self) -> None:
        """Measure the offset to the server's clock, once per event loop.

        Raises:
            TorilError: As `execute`.
        """
        clients = self._of_loop()
        if clients.knows_time:
            return
        # One question for all who come meanwhile; they go on in the order in which they came.
        if clients.learning is None:
            clients.learning = asyncio.get_running_loop().create_task(self._ask_for_time(clients))
            # They may all be gone by then, and its error is no news to anybody.
            clients.learning.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(clients.learning)

    async def _ask_for_time(self, clients: LoopClients) -> None:
        try:
            answers: list[tuple[float, float, float, int, int]] = []
            for _ in range(_TIMES_ASKED):
                if answers and clients.is_closed:
                    # Asking on would open another connection, which nobody closes.
                    break
                asked = time.time()
                seconds, microseconds = await ask(self, tuple[int, int], "TIME")
                answered = time.time()
                answers.append((answered - asked, asked, answered, seconds, microseconds))
            # The quickest tells it best; the first may have opened a connection on its way.
            self.clock.learn(*min(answers)[1:])
            clients.knows_time = True
        except ServerUnreachableError:
            raise
        except ConnectionLostError as error:
            # What the time was wanted for has not been asked for yet, so there is no doubt that it has not happened.
            raise ServerUnreachableError(str(error)) from error
        finally:
            clients.learning = None

    async def close(self) -> None:
        """Close what this event loop has opened. Safe to call twice."""
        if self._router is not None:
            await self._router.close()
        clients = self._clients.pop(asyncio.get_running_loop(), None)
        if clients is not None:
            clients.is_closed = True
            for lane in clients.idle:
                await lane.close()
            await clients.client.aclose()
            if clients.sentinels is not None:
                await clients.sentinels.stop()
        if self._lease is not None and not self._clients:
            self._lease.release()
            self._lease = None

    async def _take(self, clients: LoopClients) -> Lane:
        try:
            await clients.turns.take(CALL_TIMEOUT)
        except TimeoutError as error:
            raise ServerUnreachableError(
                f"{self.safe_url}: all {MOST_LANES} connections have been busy for {CALL_TIMEOUT:g} s without an answer"
            ) from error
        # Of these there are few, and a call does not stand in line behind thousands of workers.
        return clients.idle.pop() if clients.idle else self._new_lane(clients, None, None)

    def _give_back(self, clients: LoopClients, lane: Lane) -> None:
        clients.turns.release(was_answered=lane.is_open)
        if clients.is_closed:
            lane.abort()
        elif lane.is_open:
            clients.idle.append(lane)
            if len(clients.idle) > MOST_IDLE:
                clients.thin()
        else:
            lane.abort()

    def _of_loop(self) -> LoopClients:
        loop = asyncio.get_running_loop()
        clients = self._clients.get(loop)
        if clients is None:
            # The client reads the options that a URL may carry, such as the database or certificates.
            place = self._real_place()
            clients = self._clients[loop] = LoopClients(
                make_async(place, settings(place.url, _CONNECT_TIMEOUT, CALL_TIMEOUT), self._credentials)
            )
        return clients

    def _real_place(self) -> Place:
        if not self._url.startswith("embedded:"):
            return self._place
        if self._lease is None:
            from .embedded import acquire

            self._lease = acquire(self._url)
        return self._place.at(self._lease.url)


class Lane:
    """One connection, for one caller at a time. It opens itself, again and again if need be.

    Calls that are in flight at once each want a lane of their own: on a shared one the later answer
    waits for the earlier.
    """

    __slots__ = (
        *("__weakref__", "_closed", "_connection", "_make", "_name", "_openings", "_owner", "_used", "_wire"),
    )

    def __init__(
        self,
        owner: Connection,
        make: Callable[[], Any],
        name: str | None = None,
        openings: Turns | None = None,
    ) -> None:
        self._openings = openings
        self._owner = owner
        self._make = make
        self._connection = make()
        self._name = name
        self._used = 0.0
        self._wire: Wire | None = None
        # Is there while it opens, and done once that is not wanted any more.
        self._closed: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a socket, as far as we know."""
        return self._wire is not None and self._wire.is_open

    @property
    def is_fresh(self) -> bool:
        """Whether there is a socket that has been in use until just now."""
        return self.is_open and time.monotonic() - self._used < _FRESH_FOR

    @property
    def is_stale(self) -> bool:
        """Whether nobody has used it for a while."""
        return time.monotonic() - self._used > _STALE_AFTER

    async def execute(self, *args: Any, timeout: float = CALL_TIMEOUT) -> Any:
        """Send one command and wait for its answer.

        Args:
            args: The command and its arguments.
            timeout: How many seconds the server may take. A command that blocks needs more than it blocks for.

        Raises:
            TorilError: As `Connection.execute`.
        """
        (answer,) = await self._call(pack(args), 1, timeout)
        return answer

    async def execute_all(
        self, commands: Sequence[tuple[Any, ...]], *, timeout: float = CALL_TIMEOUT
    ) -> list[Any]:
        """Send several commands at once; see `Connection.execute_all`."""
        return await self._call(b"".join(map(pack, commands)), len(commands), timeout)

    async def execute_then(
        self, first: tuple[Any, ...], second: tuple[Any, ...], *, timeout: float
    ) -> list[Any]:
        """Send two commands at once; see `Connection.execute_then`."""
        return await self._call(pack(first) + pack(second), 2, timeout, raises=1)

    def send(
        self, data: bytes, wanted: int, done: Done, timeout: float = CALL_TIMEOUT, raises: int | None = None
    ) -> None:
        """Send packed commands over a lane that is open, behind what was sent before.

        `done` gets the answers, or an error of toril's. With `raises`, errors of later commands stand in their place.
        """
        wire = self._wire
        assert wire is not None

        def answered(outcome: list[Any] | Exception) -> None:
            self._used = time.monotonic()
            if isinstance(outcome, Exception):
                done(self._explain_loss(outcome, timeout))
                return
            for number, answer in enumerate(outcome):
                if isinstance(answer, RedisError):
                    if isinstance(answer, ReadOnlyError):
                        # The primary that we knew is a replica now; whoever opens anew finds the new one.
                        wire.abort()
                    error = explain(answer, self._owner.safe_url)
                    error.__cause__ = answer
                    if raises is not None and number >= raises:
                        outcome[number] = error
                        continue
                    done(error)
                    return
            done(outcome)

        wire.send(data, wanted, timeout, answered)

    async def _call(self, data: bytes, wanted: int, timeout: float, raises: int | None = None) -> list[Any]:
        if not self.is_open:
            await self.open()
        elif time.monotonic() - self._used > _FRESH_FOR:
            # If the server has closed it meanwhile, the event loop hears of it now.
            for _ in range(_TURNS_TO_HEAR):
                await asyncio.sleep(0)
            if self._wire is None:
                raise ServerUnreachableError(
                    f"{self._owner.safe_url}: the connection was closed on this side"
                )
            if not self.is_open:
                await self.open()
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def answered(outcome: list[Any] | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.send(data, wanted, answered, timeout, raises)
        try:
            return await future
        except asyncio.CancelledError:
            # The answer would be taken for the next call's.
            self.abort()
            raise

    def abort(self) -> None:
        """Close the socket at once; a call that is in flight on it fails with `ConnectionLostError`."""
        if self._wire is not None:
            self._wire.abort()
            # The socket is closed; redis-py, which made it, would warn that it was not.
            self._connection._reader = self._connection._writer = None

    async def close(self) -> None:
        """Close the socket; a call that is in flight on it fails with `ConnectionLostError`."""
        self.abort()
        # Whoever is about to use it does not open it again.
        self._wire = None
        if self._closed is None:
            await self._connection.disconnect(nowait=True)
        elif not self._closed.done():
            # Somebody is opening it, and is told so.
            self._closed.set_result(None)

    def leave_for(self, primary: Address) -> None:
        """Give up a connection that is open, or being opened, to another server than this one."""
        connection = self._connection
        if connection._writer is None or (connection.host, connection.port) == primary:
            return
        if self._closed is None:
            self.abort()
        elif not self._closed.done():
            self._closed.set_result(None)

    async def open(self) -> None:
        """Open a socket, where there is none; a call does so by itself.

        Raises:
            TorilError: As `Connection.execute`; nothing was sent.
        """
        # The one before is closed, and whoever closes us now means the one that comes.
        self._wire = None
        closed = self._closed = asyncio.get_running_loop().create_future()
        turn = None if self._openings is None else self._openings.join()
        try:
            if turn is not None and not turn.done():
                await in_turn(turn, closed, CALL_TIMEOUT)
            await self._open_now(closed)
        except RedisError as error:
            # Its own message says all; fifty lines from inside of redis-py and asyncio say nothing.
            error.__suppress_context__ = True
            cause = error.with_traceback(None)
            raise explain(error, self._owner.safe_url, ServerUnreachableError) from cause
        finally:
            self._closed = None
            if self._openings is not None and turn is not None:
                self._openings.leave(turn)

    async def _open_now(self, closed: asyncio.Future[None]) -> None:
        opening = asyncio.get_running_loop().create_task(self._connect())
        try:
            await asyncio.wait(
                (opening, closed), timeout=_CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
            if not closed.done() and not opening.done():
                # Signing in counts: what has accepted the connection may be dead behind that.
                tls = self._owner.safe_url.startswith("rediss")
                raise ServerUnreachableError(
                    f"cannot reach {self._owner.safe_url} (not signed in within {_CONNECT_TIMEOUT:g} s); is that port "
                    f"{'for TLS? Without it the URL begins with redis://' if tls else 'not for TLS? It needs rediss://'}"
                ) from TimeoutError("timeout while signing in")
            # Cancelled, where the Sentinels were not to be asked any more.
            if closed.done() or opening.cancelled():
                raise ServerUnreachableError(
                    f"{self._owner.safe_url}: the connection was closed while it was being opened"
                )
            self._wire = opening.result()
        finally:
            if not self.is_open:
                self._give_up(opening)

    def _give_up(self, opening: asyncio.Task[Wire]) -> None:
        """Leave a connection that nobody wants to its end, which the end of its socket brings about.

        It is being opened, or has been in the very turn in which we were told not to.
        """
        # Not only by cancelling: in the middle of signing in, redis-py may swallow that and wait on.
        opening.cancel()
        opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        writer = self._connection._writer
        if writer is not None:
            writer.transport.abort()
        if opening.done():
            # Nobody else closes it any more, and redis-py would warn that it was not.
            self._connection._reader = self._connection._writer = None
        self._connection = self._make()

    async def _connect(self) -> Wire:
        connection = self._connection
        await connection.disconnect(nowait=True)
        await connection.connect()
        if self._name is not None:
            await self._set_name(self._name)
        transport: asyncio.Transport = connection._writer.transport
        if connection._reader.at_eof() or transport.is_closing():
            # The news has gone to redis-py's reader, and would not come again.
            raise RedisConnectionError("the server has closed the connection")
        return Wire(transport, asyncio.get_running_loop())

    async def _set_name(self, name: str) -> None:
        await self._connection.send_command("CLIENT", "SETNAME", name)
        try:
            await self._connection.read_response()
        except ResponseError:
            logger.warning(
                "%s: the server refuses the connection name %r; going on without", self._owner.safe_url, name
            )

    def _explain_loss(self, error: Exception, timeout: float) -> TorilError:
        if isinstance(error, RedisTimeoutError):
            return ConnectionLostError(
                f"{self._owner.safe_url}: no answer within {timeout:g} s; the connection is given up"
            )
        if isinstance(error, RedisError):
            return explain(error, self._owner.safe_url)
        return ConnectionLostError(f"{self._owner.safe_url}: {type(error).__name__}: {first_line(error)}")
