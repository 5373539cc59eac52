"""From a URL to connections: kinds of URLs, threads and loops, calls that are cut off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis

from tests.patience import like, within
from tests.test_queue import unused_port
from toril import (
    ConfigurationError,
    Connection,
    ConnectionLostError,
    Queue,
    ServerRefusedError,
    ServerUnreachableError,
)
from toril._clients import MOST_IDLE, MOST_LANES, MOST_OPENING
from toril._faults import explain
from toril._server import look_at_server
from toril._wire import Wire
from toril.connection import CALL_TIMEOUT, Lane
from toril.embedded import EmbeddedServer

Client: TypeAlias = Any


@pytest.mark.parametrize("url", ["http://host", "localhost:6379", "redis:/", "ftp://me:secret@host"])
def test_other_kinds_of_urls_are_refused(url: str) -> None:
    """Those that there are stand in the message, a password does not."""
    if url == "redis:/":
        Connection(url)
        return
    with pytest.raises(ConfigurationError, match="redis://, rediss://, unix://, embedded://") as caught:
        Connection(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        ("redis://localhost:abc", "a port is a number up to 65535"),
        ("redis://localhost:65536", "a port is a number up to 65535"),
        ("redis://localhost/mine", "the number of a database"),
        ("redis://:hunter2@localhost/0?colour=red", "there is no option 'colour' in a URL"),
        ("unix:///socket?socket_timeout=soon", "an option has no such value"),
        (6379, "a toril.Connection, not int"),
        ({"host": "localhost"}, "a toril.Connection, not dict"),
    ],
)
def test_what_no_connection_can_be_made_of_is_refused_at_once(connection: Any, says: str) -> None:
    """Not by the client library, with the first call, in words that are about its own functions."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        Queue("tests", connection=connection)
    assert "hunter2" not in str(caught.value)


async def test_the_traceback_of_a_server_that_is_not_there_is_about_the_program() -> None:
    """What the client library and asyncio did inside is left out; its message is there."""
    async with Queue("tests", connection=f"redis://127.0.0.1:{unused_port()}") as queue:
        with pytest.raises(ServerUnreachableError) as caught:
            await queue.add("work")
    shown = "".join(traceback.format_exception(caught.value))
    assert "Connect" in shown
    assert "site-packages/redis" not in shown
    assert "During handling" not in shown


async def test_a_unix_socket(server: EmbeddedServer, tmp_path: Path) -> None:
    """A whole round over it."""
    path = tmp_path / "server.sock"
    with like(server, unixsocket=str(path)):
        async with Queue("q", connection=f"unix://{path}") as queue:
            job = await queue.add("a", 5)
            found = await queue.get_job(job.id)
            assert found is not None
            assert found.data == 5


async def test_a_database_of_the_url(server_url: str, prefix: str, client: Client) -> None:
    """The path of the URL is its number."""
    async with Connection(f"{server_url}/3") as third:
        await third.execute("SET", f"{prefix}:x", "3")
        assert await client.get(f"{prefix}:x") is None
        assert await third.execute("GET", f"{prefix}:x") == "3"


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1:{}", "redis+sentinel://127.0.0.1:{}/primary"])
async def test_a_server_that_is_not_there_was_not_lost(scheme: str) -> None:
    """The clients that open their connections themselves say "cannot reach" as well, before the first answer."""
    url = scheme.format(unused_port())
    async with Connection(url) as connection:
        with pytest.raises(ServerUnreachableError, match="cannot reach"):
            await connection.execute("PING")
        with pytest.raises(redis.ConnectionError) as of_loop:
            await connection.client.ping()
        with pytest.raises(redis.ConnectionError) as of_thread, connection.sync_client() as client:
            client.ping()
    for caught in (of_loop, of_thread):
        error = explain(caught.value, url)
        assert isinstance(error, ServerUnreachableError)
        assert str(error).startswith("cannot reach ")


async def test_an_error_of_the_server_is_told_as_it_is(server_url: str) -> None:
    """The connection stays usable."""
    async with Connection(server_url) as connection:
        with pytest.raises(ServerRefusedError, match="unknown command"):
            await connection.execute("NO-SUCH-COMMAND")
        assert await connection.execute("PING") == "PONG"


async def test_an_idle_connection_that_was_closed_is_opened_anew(
    server_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that drops idle connections costs the next caller nothing."""
    monkeypatch.setattr("toril.connection._FRESH_FOR", 0)
    async with Connection(server_url) as connection:
        own = await connection.execute("CLIENT", "ID")
        await client.client_kill_filter(_id=own)

        assert await connection.execute("PING") == "PONG"


async def test_a_silent_server_is_given_up(server_url: str) -> None:
    """A call has a deadline; its connection is not used again."""
    async with Connection(server_url) as connection:
        lane = connection.lane()
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match=r"no answer within 0\.2 s"):
            await lane.execute("BLPOP", "nothing", 0, timeout=0.2)
        assert time.monotonic() - began < CALL_TIMEOUT / 2
        assert not lane.is_open
        assert await lane.execute("PING") == "PONG"
        await lane.close()


async def test_a_long_line_for_a_connection_is_no_fault(
    server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stands behind many calls waits for all of them, as long as those are answered; else it is given up."""
    monkeypatch.setattr("toril.connection.CALL_TIMEOUT", 1.0)
    async with Connection(server_url) as connection:
        # Six turns of 0.3 s each.
        block = ("BLPOP", f"{prefix}:none", 0.3)
        answers = await asyncio.gather(*(connection.execute(*block) for _ in range(6 * MOST_LANES)))
        assert answers == [None] * len(answers)

        held = [
            asyncio.ensure_future(connection.execute("BLPOP", f"{prefix}:none", 0)) for _ in range(MOST_LANES)
        ]
        await asyncio.sleep(0)
        with pytest.raises(ServerUnreachableError, match=f"all {MOST_LANES} connections have been busy"):
            await connection.execute("PING")
        for call in held:
            call.cancel()
        await asyncio.wait(held)
        assert await connection.execute("PING") == "PONG"


async def test_many_who_ask_the_same_at_once_ask_once(server_url: str, client: Client) -> None:
    """Workers that start together: one answer for all; who comes later asks anew, also after a fault."""
    async with Connection(server_url) as connection:
        await client.config_resetstat()
        await asyncio.gather(*(look_at_server(connection) for _ in range(100)))
        assert (await client.info("commandstats"))["cmdstat_info"]["calls"] == 1
        assert "redis_version" in await connection.ask_together("INFO")
        with pytest.raises(ServerRefusedError):
            await connection.ask_together("NO-SUCH-COMMAND")
        with pytest.raises(ServerRefusedError):
            await connection.ask_together("NO-SUCH-COMMAND")


async def test_a_lane_is_closed_while_it_opens() -> None:
    """Whoever waits for it is told at once, although the server says nothing, and it can be opened again."""
    greeted = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with Connection(f"redis://127.0.0.1:{port}") as connection:
        lane = connection.lane()
        for _ in range(2):
            greeted.clear()
            call = asyncio.create_task(lane.execute("PING"))
            async with within("the beginning of its sign-in"):
                await greeted.wait()
            await lane.close()
            async with within("the end of the call", 3):
                with pytest.raises(ServerUnreachableError, match="closed while it was being opened"):
                    await call
        await lane.close()
    listening.close()


async def test_a_lane_that_is_closed_as_it_is_used_stays_closed(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that looks whether its idle socket is still there does not open another one for a long wait."""
    monkeypatch.setattr("toril.connection._FRESH_FOR", -1.0)
    async with Connection(server_url) as connection:
        lane = connection.lane()
        await lane.execute("PING")
        call = asyncio.create_task(lane.execute("BLPOP", "nothing", 30, timeout=32))
        await asyncio.sleep(0)
        await lane.close()
        async with within("the end of the call", 5):
            with pytest.raises(ServerUnreachableError, match="closed on this side"):
                await call
        # Who wants it again has it again.
        assert await lane.execute("PING") == "PONG"
        await lane.close()


async def test_an_opening_that_others_cancel_is_no_cancellation_of_the_caller(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the Sentinels are asked no more: the caller hears that nothing was sent."""
    asked = asyncio.get_running_loop().create_future()
    asked.cancel()

    async def connect(self: Lane) -> Wire:
        await asked
        raise AssertionError

    monkeypatch.setattr(Lane, "_connect", connect)
    async with Connection(server_url) as connection:
        with pytest.raises(ServerUnreachableError, match="closed while it was being opened"):
            await connection.execute("PING")


async def test_who_asks_for_the_time_while_it_is_closed_opens_nothing_anew(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question outlives who asked it, and its first answer is enough."""
    execute = Connection.execute

    async def closed_after(self: Connection, *args: Any) -> Any:
        answer = await execute(self, *args)
        patched.undo()
        await connection.close()
        return answer

    connection = Connection(server_url)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "execute", closed_after)
        await connection.learn_time()
    assert not connection._clients


async def test_lanes_are_opened_in_their_turn() -> None:
    """Some at once, so that thousands do not make each other late; calls that share connections are not behind them."""
    count, news = 0, asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        news.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(100):
                pass
        writer.close()

    async def until_accepted(number: int) -> None:
        async with within(f"connection {number}"):
            while count < number:
                news.clear()
                await news.wait()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, Connection(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as connection:
        lanes = [connection.lane() for _ in range(MOST_OPENING + 2)]
        calls = [asyncio.create_task(lane.execute("PING")) for lane in lanes]
        await until_accepted(MOST_OPENING)
        calls.append(asyncio.create_task(connection.execute("PING")))
        await until_accepted(MOST_OPENING + 1)

        await lanes[-1].close()
        async with within("the end of a call that stands in line"):
            with pytest.raises(ServerUnreachableError, match="closed while it was being opened"):
                await calls[len(lanes) - 1]
        assert count == MOST_OPENING + 1

        await lanes[0].close()
        await until_accepted(MOST_OPENING + 2)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_who_stands_in_line_for_an_opening_hears_that_none_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind many workers in an outage, a lane would else be silent for as long as all of them have their deadlines."""
    monkeypatch.setattr("toril.connection.CALL_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        async with Connection(f"redis://:password@127.0.0.1:{silent.getsockname()[1]}") as connection:
            lanes = [connection.lane() for _ in range(MOST_OPENING + 1)]
            calls = [asyncio.create_task(lane.open()) for lane in lanes]
            async with within("the end of the line"):
                with pytest.raises(
                    ServerUnreachableError, match=f"{MOST_OPENING} others have been connecting"
                ):
                    await calls[-1]
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_lane_that_is_closed_as_it_opens_leaves_no_socket(
    server_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """In the very turn of the event loop in which its connection is there."""
    opened: list[Wire] = []

    async def connect(lane: Lane) -> Wire:
        wire = await real(lane)
        opened.append(wire)
        if how == "closed":
            await lane.close()
        else:
            call.cancel()
        return wire

    real = Lane._connect
    async with Connection(server_url) as connection:
        lane = connection.lane()
        # Also where it was open before.
        assert await lane.execute("PING") == "PONG"
        lane.abort()
        monkeypatch.setattr(Lane, "_connect", connect)
        call = asyncio.create_task(lane.execute("PING"))
        with pytest.raises((ServerUnreachableError, asyncio.CancelledError)):
            await call
        assert [wire.is_open for wire in opened] == [False]
        assert not lane.is_open
        monkeypatch.undo()
        assert await lane.execute("PING") == "PONG"
        await lane.close()


async def test_who_accepts_and_then_is_silent_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead server behind a living proxy: signing in has the deadline of connecting, and nothing was sent."""
    monkeypatch.setattr("toril.connection._CONNECT_TIMEOUT", 0.2)
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        url = f"redis://127.0.0.1:{listening.getsockname()[1]}"
        async with Connection(url) as connection, within("the end of the call", 5):
            with pytest.raises(ServerUnreachableError, match=r"not signed in within 0\.2 s"):
                await connection.execute("PING")


async def test_a_call_is_never_sent_twice(server_url: str, prefix: str, client: Client) -> None:
    """The client library retries nothing: of a push whose answer is lost there is one."""
    async with Connection(server_url) as connection:
        lane = connection.lane()
        own = await lane.execute("CLIENT", "ID")
        key = f"{prefix}:list"
        # The command kills its own connection before the answer can go out.
        script = "redis.call('RPUSH', KEYS[1], 'x') redis.call('CLIENT', 'KILL', 'ID', ARGV[1]) return 1"
        with contextlib.suppress(ConnectionLostError, ServerRefusedError):
            await lane.execute("EVAL", script, 1, key, own)
        assert await client.llen(key) == 1
        await lane.close()


def test_one_connection_serves_several_threads(server_url: str, prefix: str) -> None:
    """Each event loop has clients of its own behind it."""
    connection = Connection(server_url)
    counted: list[int] = []

    async def count() -> None:
        for _ in range(50):
            await connection.execute("INCR", f"{prefix}:n")
        counted.append(int(await connection.execute("GET", f"{prefix}:n")))
        await connection.close()

    threads = [threading.Thread(target=lambda: asyncio.run(count())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert max(counted) == 200


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_closed_event_loops_have_opened_is_let_go(server_url: str, prefix: str) -> None:
    """A script that calls `asyncio.run` again and again, and never `close`, does not run out of sockets."""
    queue = Queue("q", connection=server_url, prefix=prefix)

    def sockets() -> int:
        gc.collect()
        return sum(
            os.path.realpath(f"/proc/self/fd/{name}").count("socket:") for name in os.listdir("/proc/self/fd")
        )

    asyncio.run(queue.add("a"))
    before = sockets()
    for _ in range(10):
        asyncio.run(queue.add("a"))
    assert sockets() <= before + 1

    asyncio.run(queue.close())


async def test_closing_twice_is_harmless(server_url: str) -> None:
    """And a closed connection opens again when it is used."""
    connection = Connection(server_url)
    assert await connection.execute("PING") == "PONG"
    await connection.close()
    await connection.close()
    assert await connection.execute("PING") == "PONG"
    await connection.close()


async def test_connections_of_a_burst_are_closed_when_they_are_needed_no_more(
    server_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few are kept; the others go with the first call after a while, the longest idle first, without a warning."""
    before = len(await client.client_list())
    async with Connection(server_url) as connection:
        await asyncio.gather(*(connection.execute("PING") for _ in range(30)))
        await connection.execute("PING")
        idle = connection._of_loop().idle
        assert len(idle) == 30
        monkeypatch.setattr("toril.connection._STALE_AFTER", 0.0)
        assert await connection.execute("PING") == "PONG"
        assert len(idle) == MOST_IDLE
        await asyncio.gather(*(connection.execute("PING") for _ in range(MOST_IDLE)))
        async with within("the end of the sockets"):
            while len(await client.client_list()) > before + MOST_IDLE:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.01)


async def test_closing_leaves_no_sockets(server_url: str, client: Client) -> None:
    """The server sees as many clients as before."""
    before = len(await client.client_list())
    async with Connection(server_url) as connection:
        await asyncio.gather(*(connection.execute("PING") for _ in range(20)))
        assert len(await client.client_list()) > before
    async with within("the end of the sockets"):
        while len(await client.client_list()) > before:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)


def test_clients_and_workers_import_without_unix() -> None:
    """On Windows there is no fcntl, pwd, resource or termios: neither producers nor workers need them."""
    program = """
import sys
for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty"):
    sys.modules[name] = None
import toril, toril.worker, toril.sync, toril.flow_producer
toril.Worker(toril.Queue("q"), print)
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "imported", done.stderr
