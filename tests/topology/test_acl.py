"""Users with the least rights: derived by watching, enough for everything, and with any one less, not enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import redis

from tests.topology.acl import derive, rule, written
from tests.topology.everything import ROLES
from toril import AuthenticationError, Connection, Queue, Worker
from toril.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    """A server whose users may be changed."""
    with EmbeddedServer() as server:
        yield server


def test_each_role_works_with_the_rights_in_the_docs_and_no_fewer(own_server: EmbeddedServer) -> None:
    """What the docs say is what was derived; nobody is denied anything; without any one of them somebody is."""
    seen = asyncio.run(derive(own_server, "bull"))
    with redis.Redis.from_url(own_server.url, decode_responses=True) as admin:
        ask: Any = admin.execute_command
        for role, found in seen.items():
            # The docs may know rarer paths than this run took, never fewer rights than it needed.
            granted = {part[1:] for part in written()[role].split(" -@all ")[1].split(" ")}
            assert found.needed() <= granted, (
                f"python -m tests.topology.acl --write: {found.needed() - granted}"
            )
            ask(*rule(role, granted, "bull:*").split(" "))
            for command, args in found.commands.items():
                assert ask("ACL", "DRYRUN", f"toril-{role}", *args) == "OK", (role, args)
                ask("ACL", "SETUSER", f"toril-{role}", f"-{command}")
                assert "no permissions" in ask("ACL", "DRYRUN", f"toril-{role}", *args), (role, command)
                ask("ACL", "SETUSER", f"toril-{role}", f"+{command}")
        ask("ACL", "LOG", "RESET")
        port = own_server.port
        for role, act in ROLES.items():
            asyncio.run(_as(f"redis://toril-{role}:password@127.0.0.1:{port}", act))
        assert ask("ACL", "LOG") == []


async def _as(url: str, act: Any) -> None:
    async with Connection(url) as connection:
        await act(connection, "bull")


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
                with pytest.raises(AuthenticationError, match="refuses the user name or password"):
                    await queue.add("a", 2)
                password[0] = "new"
                job = await queue.add("a", 3)
                assert await job.result(10) == 3
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
