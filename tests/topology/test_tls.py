"""TLS: certificates on both sides, made for the test; whoever cannot prove who he is, is refused."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.patience import ended, until
from tests.topology.nodes import Node, cluster, sentinel_over
from toril import Connection, Queue, TorilError, Worker
from toril.embedded import EmbeddedServer

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on the PATH")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and what it has signed: one for the server, one for the client."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True, timeout=30)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for authority in ("ca", "stranger"):
        # Python 3.13 is strict: an authority has to say that it signs, and who is signed by whom.
        signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        out = ("-keyout", f"{authority}.key", "-out", f"{authority}.crt")
        openssl("req", "-x509", *new, *signs, *out, "-subj", "/CN=ca")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    for who, authority in (("server", "ca"), ("client", "ca"), ("impostor", "stranger")):
        openssl("req", *new, "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        sign = (
            "-CA",
            f"{authority}.crt",
            "-CAkey",
            f"{authority}.key",
            "-CAcreateserial",
            "-extfile",
            "names",
        )
        openssl("x509", "-req", "-in", f"{who}.csr", "-out", f"{who}.crt", *sign)
    return directory


@asynccontextmanager
async def tls_in_front_of(port: int, certificates: Path) -> AsyncGenerator[int]:
    """A door that speaks TLS, asks for a certificate, and hands on what it hears; as a server's `tls-port` does.

    Who does not speak TLS is let through all the same: servers that look after each other do not here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    tasks: set[asyncio.Task[Any]] = set()

    loop = asyncio.get_running_loop()

    async def welcome() -> None:
        while True:
            client, _ = await loop.sock_accept(listening)
            task = loop.create_task(serve(client))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def serve(client: socket.socket) -> None:
        ready = asyncio.Event()
        loop.add_reader(client, ready.set)
        try:
            await ready.wait()
            is_tls = client.recv(1, socket.MSG_PEEK) == b"\x16"
        finally:
            loop.remove_reader(client)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=context if is_tls else None
            )
        except OSError:
            client.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, inner_writer))
                group.create_task(pump(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        tasks.add(loop.create_task(welcome()))
        try:
            yield listening.getsockname()[1]
        finally:
            ended = list(tasks)
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)


async def test_a_whole_round_over_tls(server: EmbeddedServer, prefix: str, certificates: Path) -> None:
    """Producer, worker and heartbeat show their certificate and check the server's."""
    async with tls_in_front_of(server.port, certificates) as port:
        url = (
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates}/ca.crt"
            f"&ssl_certfile={certificates}/client.crt&ssl_keyfile={certificates}/client.key"
        )

        async def process(job: Any) -> Any:
            await asyncio.sleep(1.2)
            return job.data

        async with Queue("q", connection=url, prefix=prefix) as queue:
            async with Worker(queue, process, lock_duration=1):
                # Longer than its lock: the heartbeat's connection works too.
                assert await (await queue.add("a", 1)).result(10) == 1
            assert "ssl_keyfile" not in queue.connection.safe_url


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("ssl_ca_certs={}/ca.crt", "cannot reach|connection lost"),
        (
            "ssl_ca_certs={}/ca.crt&ssl_certfile={}/impostor.crt&ssl_keyfile={}/impostor.key",
            "cannot reach|connection lost",
        ),
        (
            "ssl_ca_certs={}/stranger.crt&ssl_certfile={}/client.crt&ssl_keyfile={}/client.key",
            "certificate verify failed",
        ),
        ("ssl_certfile={}/client.crt&ssl_keyfile={}/client.key", "certificate verify failed"),
    ],
    ids=["no-certificate", "another-authority", "a-server-nobody-knows", "the-system's-authorities"],
)
async def test_who_cannot_prove_who_he_is(
    server: EmbeddedServer, prefix: str, certificates: Path, options: str, says: str
) -> None:
    """Server or client: nothing is added."""
    async with tls_in_front_of(server.port, certificates) as port:
        url = f"rediss://127.0.0.1:{port}?" + options.replace("{}", str(certificates))
        async with Queue("q", connection=url, prefix=prefix) as queue:
            with pytest.raises(TorilError, match=says):
                await queue.add("a")
    async with Connection(server.url) as connection:
        assert await connection.execute("KEYS", f"{prefix}:*") == []


def proofs(certificates: Path) -> str:
    return (
        f"ssl_ca_certs={certificates}/ca.crt&ssl_certfile={certificates}/client.crt"
        f"&ssl_keyfile={certificates}/client.key"
    )


async def a_round(url: str, prefix: str) -> None:
    """A job is added, its lock is renewed, it ends, and its producer hears of that."""
    renewed: list[Any] = []

    async def process(job: Any) -> Any:
        await until("a renewal of the lock", lambda: bool(renewed))
        return job.data

    async with Queue("q", connection=url, prefix=prefix) as queue:
        worker = Worker(queue, process, lock_duration=1)
        worker.on("locks_renewed", renewed.append)
        async with worker:
            assert await ended(await queue.add("a", 5)) == [5]


async def test_a_whole_round_through_a_sentinel_over_tls(
    server: EmbeddedServer, prefix: str, certificates: Path
) -> None:
    """The Sentinel and the primary are both asked for their certificates, and shown the client's."""
    async with (
        tls_in_front_of(server.port, certificates) as primary,
        sentinel_over(primary) as watcher,
        tls_in_front_of(watcher.port, certificates) as door,
    ):
        await a_round(f"rediss+sentinel://127.0.0.1:{door}/mymaster/0?{proofs(certificates)}", prefix)
        stranger = f"rediss+sentinel://127.0.0.1:{door}/mymaster/0?ssl_ca_certs={certificates}/stranger.crt"
        async with Connection(stranger) as connection:
            with pytest.raises(TorilError, match="No master found"):
                await connection.execute("PING")


async def test_a_whole_round_on_a_cluster_over_tls(certificates: Path) -> None:
    """Each node is found at the port that it announces, with the certificates of the URL."""
    async with cluster() as nodes, AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(tls_in_front_of(node.port, certificates)) for node in nodes]
        for node, door in zip(nodes, doors, strict=True):
            await node.ask("CONFIG", "SET", "cluster-announce-port", door)
        for node in nodes:
            await until("the nodes to know the doors", lambda node=node: _knows(node, doors))
        await a_round(f"rediss+cluster://127.0.0.1:{doors[1]}?{proofs(certificates)}", "{tls}")


async def _knows(node: Node, doors: list[int]) -> bool:
    return sorted(row[2][1] for row in await node.ask("CLUSTER", "SLOTS")) == sorted(doors)


def test_cluster_and_sentinel_keep_the_options_of_tls() -> None:
    """Each node is reached as the URL says."""
    from toril._topology import Place

    url = "rediss+cluster://me:pw@a:1,b:2?ssl_ca_certs=/ca.crt"
    assert Place.of(url, url).node("c", 3) == "rediss://me:pw@c:3/0?ssl_ca_certs=%2Fca.crt"
    url = "rediss+sentinel://a:1/svc/2?ssl_ca_certs=/ca.crt&sentinel_username=s&sentinel_password=p"
    place = Place.of(url, url)
    assert (place.kind, place.service, place.hosts, place.sentinel) == (
        "sentinel",
        "svc",
        (("a", 1),),
        ("s", "p"),
    )
    assert place.url == "rediss://localhost/2?ssl_ca_certs=%2Fca.crt"
