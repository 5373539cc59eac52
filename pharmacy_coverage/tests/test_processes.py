"""The platform as it is deployed: processes of its own for API, relay and workers, some of which are killed."""

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from dev.mongo import MongoServer

from .support import Platform, eventually, sign_in

COMMANDS = {
    "relay": [sys.executable, "-m", "pharmacy_coverage.relay"],
    "worker": [sys.executable, "-m", "toril.cli", "worker", "pharmacy_coverage.worker:workers"],
}


class Processes:
    """Processes of the platform, ended by their own ids."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self._environment = {**os.environ, **environment}
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *command: str) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *(command or COMMANDS[name]), env=self._environment, stdout=log, stderr=log
            )

    async def api(self, status: int = 200) -> str:
        """Start the web application. Returns its address when its health has this status."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        app = "pharmacy_coverage.main:create_app"
        command = [sys.executable, "-m", "uvicorn", app, "--factory", "--port", str(port), "--loop", "uvloop"]
        await self.start("api", *command)
        url = f"http://127.0.0.1:{port}"

        async def answers() -> bool:
            async with httpx.AsyncClient() as client:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get(f"{url}/healthz")).status_code == status
            return False

        await eventually(answers, "the API answers", 30, state=self.said)
        return url

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self._running.pop(name)
        process.send_signal(number)
        await process.wait()

    def is_running(self, name: str) -> bool:
        return self._running[name].returncode is None

    async def stop(self) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def said(self) -> str:
        """The ends of the logs."""
        return "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in self._logs.glob("*.log"))


@pytest.fixture
async def processes(
    platform: Platform, environment: dict[str, str], tmp_path: Path
) -> AsyncGenerator[Processes]:
    processes = Processes(environment, tmp_path)
    yield processes
    await processes.stop()


@contextlib.asynccontextmanager
async def at(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, headers={"accept": "text/html", "origin": url}) as client:
        yield client


async def applications_sent(
    client: httpx.AsyncClient, platform: Platform, count: int, since: int
) -> list[float]:
    """So many pharmacists apply for shifts, one after another. Returns how long each answer took."""
    took: list[float] = []
    people = await platform.documents("users", {"role": "pharmacist", "_id": {"$regex": "^usr_n"}})
    for person in people[since : since + count]:
        shift = await platform.post()
        client.cookies.clear()
        answer = await client.post("/sign-in/demo", data={"user_id": person["_id"]})
        assert answer.status_code == 303
        begin = time.monotonic()
        answer = await client.post(f"/shifts/{shift.id}/applications", data={"message": ""})
        took.append(time.monotonic() - begin)
        assert answer.status_code == 303, answer.text
    return took


def told(platform: Platform) -> list[str]:
    """The Message-IDs of the mails about applicants."""
    return [str(m["Message-ID"]) for m in platform.inbox.messages if "applied for" in str(m["Subject"])]


async def test_without_workers_the_api_is_as_fast_and_nothing_is_lost(
    platform: Platform, processes: Processes
) -> None:
    """All workers killed: applications are answered as before; when workers return, every mail goes out, once."""
    await platform.many_pharmacists(40)
    url = await processes.api()
    await processes.start("relay")
    await processes.start("worker")
    async with at(url) as client:
        await applications_sent(client, platform, 5, 0)  # Connections and caches are warm.
        before = await applications_sent(client, platform, 15, 5)
        await platform.all_done(60)

        await processes.kill("worker")
        without = await applications_sent(client, platform, 20, 20)
        assert (await client.get("/healthz")).json()["status"] == "ok"
        assert processes.is_running("api")
    assert len(told(platform)) == 20
    # Not slower than the noise of a busy machine.
    assert statistics.median(without) < statistics.median(before) * 2 + 0.05

    await processes.start("worker")
    await platform.all_done(60)
    assert len(set(told(platform))) == len(told(platform)) == 40
    assert await platform.documents("applications", {"fit.state": "checking"}) == []


async def test_a_worker_killed_while_it_sends(platform: Platform, processes: Processes) -> None:
    """Killed in the middle of SMTP, three times: every mail arrives, with at most one double per mail in flight."""
    await platform.many_pharmacists(12)
    platform.inbox.delay = 0.3
    url = await processes.api()
    await processes.start("relay")
    await processes.start("worker")
    async with at(url) as client:
        for round in range(3):
            await applications_sent(client, platform, 4, round * 4)

            async def is_sending() -> bool:
                return bool(await platform.documents("deliveries", {"state": "sending"}))

            await eventually(is_sending, "a mail is being sent", 30, state=processes.said)
            await processes.kill("worker")
            assert processes.is_running("api")
            assert (await client.get("/healthz")).status_code == 200
            await processes.start("worker")
        platform.inbox.delay = 0.0
        await platform.all_done(60)
    assert len(set(told(platform))) == 12
    # Ten messages may be under way in one worker; what the server had taken is sent again, under the same id.
    assert len(told(platform)) <= 12 + 3 * 10


async def test_everything_but_the_api_dies(platform: Platform, processes: Processes) -> None:
    """Relay and workers killed and Redis wiped at once: the API goes on, and all is made good afterwards."""
    await platform.many_pharmacists(10)
    url = await processes.api()
    await processes.start("relay")
    await processes.start("worker")
    async with at(url) as client:
        await applications_sent(client, platform, 3, 0)
        await asyncio.gather(processes.kill("relay"), processes.kill("worker"))
        await platform.queue_redis.flushall()
        platform.queue_server.kill()
        await applications_sent(client, platform, 7, 3)
        assert (await client.get("/healthz")).json()["degraded"] == ["queue"]
    platform.queue_server.start()
    await processes.start("relay")
    await processes.start("worker")
    await platform.all_done(60)
    assert len(set(told(platform))) == 10


async def test_orderly_restarts_under_load(platform: Platform, processes: Processes) -> None:
    """SIGTERM to relay and worker while people apply: both end by themselves, and nothing is sent twice."""
    await platform.many_pharmacists(12)
    url = await processes.api()
    await processes.start("relay")
    await processes.start("worker")
    async with at(url) as client:
        for round in range(3):
            await applications_sent(client, platform, 4, round * 4)
            await processes.kill("worker", signal.SIGTERM)
            await processes.start("worker")
        await processes.kill("relay", signal.SIGTERM)
        await processes.start("relay")
        await platform.all_done(60)
        await sign_in(client, platform.mira)
        assert "Applicants to answer" in (await client.get("/pharmacy")).text
    assert len(told(platform)) == len(set(told(platform))) == 12


async def test_mongodb_comes_later_than_everybody_else(
    platform: Platform, mongo: MongoServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """API and relay wait for it, the one answering that it is not ready, and come up when it does."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        later = mongo.url.replace(f":{mongo.port}/", f":{place.getsockname()[1]}/")
        assert later != mongo.url
        processes = Processes(environment | {"MONGODB_URL": later}, tmp_path)
        try:
            await processes.start("relay")
            url = await processes.api(503)
            async with at(url) as client:
                assert (await client.get("/healthz")).json() == {
                    "status": "starting",
                    "degraded": ["database"],
                }
                assert (await client.get("/shifts")).status_code == 503

                async def is_waiting() -> bool:
                    return (await processes.said()).count("trying until it is") >= 2

                await eventually(is_waiting, "both have tried once", 60, state=processes.said)
                assert processes.is_running("api")
                assert processes.is_running("relay")

                # Who asks here is told where the replica set is, which is all that the driver needs.
                async def show(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    there, back = await asyncio.open_connection("127.0.0.1", mongo.port)
                    await asyncio.wait(
                        [asyncio.create_task(_pass_on(*way)) for way in ((reader, back), (there, writer))],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    writer.close()
                    back.close()

                async with await asyncio.start_server(show, sock=place):

                    async def is_up() -> bool:
                        return (await client.get("/healthz")).status_code == 200 and "relay: running" in (
                            tmp_path / "relay.log"
                        ).read_text()

                    await eventually(is_up, "both have come up", 60, state=processes.said)
                assert (await client.get("/sign-in")).status_code == 200
        finally:
            await processes.stop()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
