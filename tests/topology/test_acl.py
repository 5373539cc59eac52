"""Users with the least rights: derived by watching, enough for everything, and with any one less, not enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import redis
import redis.asyncio

from tests.topology.acl import derive, rule, written
from tests.topology.everything import ROLES, stage
from toril import AuthenticationError, Connection, ConnectionLostError, Job, Queue, Worker
from toril.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    """A server whose users may be changed."""
    with EmbeddedServer() as server:
        yield server


def test_each_role_works_with_the_rights_in_the_docs_and_no_fewer(own_server: EmbeddedServer) -> None:
    """The docs say what was derived, and no more; nobody is denied anything; without any one of them somebody is."""
    seen = asyncio.run(derive(own_server, "bull"))
    assert set(written()) == set(ROLES)
    with redis.Redis.from_url(own_server.url, decode_responses=True) as admin:
        ask: Any = admin.execute_command
        for role, found in seen.items():
            granted = {part[1:] for part in written()[role].split(" -@all ")[1].split(" ")}
            missing, needless = found.needed() - granted, granted - found.needed()
            assert (missing, needless) == (set(), set()), f"{role}: python -m tests.topology.acl --write"
            assert written()[role] == rule(role, granted)
            ask(*written()[role].split(" "))
            for command, args in found.commands.items():
                assert ask("ACL", "DRYRUN", f"toril-{role}", *args) == "OK", (role, args)
                ask("ACL", "SETUSER", f"toril-{role}", f"-{command}")
                assert "no permissions" in ask("ACL", "DRYRUN", f"toril-{role}", *args), (role, command)
                ask("ACL", "SETUSER", f"toril-{role}", f"+{command}")
            # Also who only looks needs more of keys than to read them: scripts that may write ask for all of it.
            for less in ("%R~bull:*", "%W~bull:*"):
                ask("ACL", "SETUSER", f"toril-{role}", "resetkeys", less)
                answers = [ask("ACL", "DRYRUN", f"toril-{role}", *args) for args in found.commands.values()]
                assert any("no permissions" in answer for answer in answers), (role, less)
            ask("ACL", "SETUSER", f"toril-{role}", "resetkeys", "~bull:*")
        ask("ACL", "LOG", "RESET")
        for role in ROLES:
            asyncio.run(_as(role, own_server))
        assert ask("ACL", "LOG") == []


async def _as(role: str, server: EmbeddedServer) -> None:
    async with (
        redis.asyncio.Redis.from_url(server.url) as admin,
        Connection(server.url) as all_rights,
        Connection(f"redis://toril-{role}:password@127.0.0.1:{server.port}") as connection,
    ):
        await stage(role, admin, all_rights, "bull")
        await ROLES[role](connection, "bull")


async def test_one_right_less_is_told_by_its_name(own_server: EmbeddedServer) -> None:
    """A producer that may not XADD adds nothing, half or whole, and its caller reads which right is missing."""
    with redis.Redis.from_url(own_server.url, decode_responses=True) as admin:
        ask: Any = admin.execute_command
        ask(*written()["producer"].split(" "))
        for right in ("evalsha", "time"):
            ask("ACL", "SETUSER", "toril-producer", f"-{right}")
            url = f"redis://toril-producer:password@127.0.0.1:{own_server.port}"
            async with Queue("less", connection=url) as queue:
                with pytest.raises(AuthenticationError, match="lacks a right"):
                    await queue.add("a")
            ask("ACL", "SETUSER", "toril-producer", f"+{right}")
        assert not admin.keys("bull:less:[0-9]*")


async def test_one_tenant_cannot_touch_another(own_server: EmbeddedServer) -> None:
    """Rights by prefix hold also for keys that scripts build themselves."""
    with redis.Redis.from_url(own_server.url, decode_responses=True) as admin:
        ask: Any = admin.execute_command
        line = written()["producer"].replace("toril-producer", "tenant-a").replace("~bull:*", "~a:*")
        ask(*line.split(" "))
        async with Connection(f"redis://tenant-a:password@127.0.0.1:{own_server.port}") as connection:
            await Queue("q", connection=connection, prefix="a").add("mine")
            with pytest.raises(AuthenticationError):
                await Queue("q", connection=connection, prefix="b").add("theirs")
        assert not admin.keys("b:*")


async def test_a_worker_comes_back_after_its_password_was_rotated(own_server: EmbeddedServer) -> None:
    """Credentials are asked for whenever a connection is opened; the old password stops working, the job runs."""
    password = ["old:p@ss"]
    with redis.Redis.from_url(own_server.url, decode_responses=True) as admin:
        ask: Any = admin.execute_command
        ask("ACL", "SETUSER", "rotating", "on", f">{password[0]}", "allkeys", "+@all")
        connection = Connection(
            f"redis://127.0.0.1:{own_server.port}", credentials=lambda: ("rotating", password[0])
        )
        async with connection:
            queue = Queue("rotated", connection=connection)

            async def process(job: Any) -> Any:
                return job.data

            async with Worker(queue, process):
                assert await (await queue.add("a", 1)).result(10) == 1
                ask("ACL", "SETUSER", "rotating", "resetpass", ">new")
                ask("CLIENT", "KILL", "USER", "rotating")
                # Of a try that was on its way when its connection was closed nobody knows whether it was heard.
                with pytest.raises(
                    (AuthenticationError, ConnectionLostError), match="refuses the user name or password"
                ):
                    await queue.add("a", 2)
                password[0] = "new"
                job = await queue.add("a", 3)
                assert await job.result(10) == 3
        admin.flushall()


@pytest.mark.parametrize("fault", ["the old password", "no credentials at all"])
async def test_a_job_that_fails_while_the_password_changes_is_tried_again(
    own_server: EmbeddedServer, fault: str
) -> None:
    """Its next attempt is planned as soon as the worker can sign in again, and not when its lock has run out."""
    password, is_away = ["old"], asyncio.Event()

    def credentials() -> tuple[str, str]:
        if is_away.is_set():
            raise OSError("the vault is sealed")
        return "changing", password[0]

    with redis.Redis.from_url(own_server.url, decode_responses=True) as admin:
        ask: Any = admin.execute_command
        ask("ACL", "SETUSER", "changing", "on", "resetpass", ">old", "allkeys", "+@all")
        async with Connection(f"redis://127.0.0.1:{own_server.port}", credentials=credentials) as connection:
            queue = Queue("changed", connection=connection)
            loop = asyncio.get_running_loop()

            def mend() -> None:
                is_away.clear()
                password[0] = "new"

            async def process(job: Job[Any]) -> int:
                if job.attempts_started == 1:
                    if fault == "no credentials at all":
                        is_away.set()
                    ask("ACL", "SETUSER", "changing", "resetpass", ">new")
                    ask("CLIENT", "KILL", "USER", "changing")
                    loop.call_later(0.3, mend)
                    raise ValueError
                return job.attempts_started

            async with Queue("changed", connection=own_server.url) as producer:
                job = await producer.add("a", attempts=2)
                async with Worker(queue, process):
                    assert await job.result(10) == 2
        admin.flushall()


@pytest.mark.parametrize("password", ["p@ss:w/rd?#", "%41", "é"])
async def test_a_password_in_the_url_is_percent_encoded(own_server: EmbeddedServer, password: str) -> None:
    """Any character can be in it, and none of it is in an error."""
    with redis.Redis.from_url(own_server.url, decode_responses=True) as admin:
        ask: Any = admin.execute_command
        ask("ACL", "SETUSER", "quoted", "on", "resetpass", f">{password}", "allkeys", "+@all")
        encoded = quote(password, safe="")
        async with Connection(f"redis://quoted:{encoded}@127.0.0.1:{own_server.port}") as connection:
            assert await connection.execute("PING") == "PONG"
            with pytest.raises(Exception, match="unknown command") as caught:
                await connection.execute("NO-SUCH")
            assert password not in str(caught.value)
            assert encoded not in str(caught.value)
