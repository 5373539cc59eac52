"""TLS: certificates on both sides, made for the test; whoever cannot prove who he is, is refused."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

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
        openssl(
            "req", "-x509", *new, "-keyout", f"{authority}.key", "-out", f"{authority}.crt", "-subj", "/CN=ca"
        )
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
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
async def tls_in_front_of(server: EmbeddedServer, certificates: Path) -> AsyncGenerator[int]:
    """A door that speaks TLS, asks for a certificate, and hands on what it hears; as a server's `tls-port` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, inner_writer))
                group.create_task(pump(inner_reader, writer))
        finally:
            tasks.discard(task)
            inner_writer.close()
            writer.close()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    door = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with door:
        yield door.sockets[0].getsockname()[1]
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_whole_round_over_tls(server: EmbeddedServer, prefix: str, certificates: Path) -> None:
    """Producer, worker and heartbeat show their certificate and check the server's."""
    async with tls_in_front_of(server, certificates) as port:
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
    async with tls_in_front_of(server, certificates) as port:
        url = f"rediss://127.0.0.1:{port}?" + options.replace("{}", str(certificates))
        async with Queue("q", connection=url, prefix=prefix) as queue:
            with pytest.raises(TorilError, match=says):
                await queue.add("a")
    async with Connection(server.url) as connection:
        assert await connection.execute("KEYS", f"{prefix}:*") == []


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
