"""Real servers for the platform's tests: a MongoDB replica set, two Valkeys, an SMTP server.

Each pytest process has its own, on free loopback ports, and ends them. Each test finds the seeded people and nothing
else, under a queue and cache prefix of its own process.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

# The launcher of the development servers lives in the repository, beside this project.
sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.pop("MONGODB_URL", None)

from dev.mongo import MongoServer
from toril.embedded import EmbeddedServer

from pharmacy_coverage import services as services_module
from pharmacy_coverage.outbox.relay import Relay
from pharmacy_coverage.seed import seed_people
from pharmacy_coverage.services import Services
from pharmacy_coverage.settings import Settings, process_settings

from .support import Inbox, Platform, workers


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    with MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture(scope="session")
def queue_server() -> Iterator[EmbeddedServer]:
    """The queues' Valkey. Tests may wipe and restart it."""
    server = EmbeddedServer(None)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cache_server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(None)
    server.start()
    yield server
    server.stop()


class AnyPortController(Controller):
    """Listens where the system lets it, and knows where that is."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def inbox() -> Iterator[Inbox]:
    handler = Inbox()
    # The factory's own loop runs in a thread, as a mail server would be elsewhere.
    controller = AnyPortController(handler, hostname="127.0.0.1", port=0)
    controller.start()
    handler.port = controller.port
    yield handler
    controller.stop()


@pytest.fixture(scope="session")
def environment(
    mongo: MongoServer, queue_server: EmbeddedServer, cache_server: EmbeddedServer, inbox: Inbox
) -> Iterator[dict[str, str]]:
    """The environment in which the platform's processes of this test run find their servers."""
    variables = {
        "MONGODB_URL": mongo.url,
        "MONGODB_DATABASE": f"test_{os.getpid()}",
        "TORIL_URL": queue_server.url,
        "QUEUE_PREFIX": f"test{os.getpid()}",
        "CACHE_URL": cache_server.url,
        "CACHE_PREFIX": f"test{os.getpid()}",
        "SMTP_URL": f"smtp://127.0.0.1:{inbox.port}",
        "PUBLIC_URL": "http://testserver",
        "WORKER_LOCK_SECONDS": "3",
        "WORKER_STALLED_SECONDS": "1",
        "MAIL_LEASE_SECONDS": "4",
        "MAIL_RETRY_SECONDS": "0.2",
        "RELAY_POLL_SECONDS": "0.5",
        "RELAY_EPOCH_SECONDS": "0.3",
        "RELAY_RECONCILE_SECONDS": "0.5",
        "RELAY_PLAN_SECONDS": "1",
        "RELAY_VISIBILITY_FACTOR": "0.1",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    process_settings.cache_clear()
    yield variables
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def settings(environment: dict[str, str]) -> Settings:
    return process_settings()


@pytest.fixture(scope="session")
async def opened(settings: Settings) -> AsyncIterator[Services]:
    """The session's services, which in-process workers share."""
    services = services_module.current()
    await services.prepare()
    yield services
    await services.database.client.drop_database(settings.mongodb_database)
    await services.close()


@pytest.fixture
async def platform(
    opened: Services,
    settings: Settings,
    inbox: Inbox,
    queue_server: EmbeddedServer,
    cache_server: EmbeddedServer,
) -> AsyncIterator[Platform]:
    """The platform with its seeded people, no shifts, and nobody at work."""
    for server in (queue_server, cache_server):
        server.start()
    database = opened.database
    for name in await database.db.list_collection_names():
        await database.collection(name).delete_many({})
    async with Platform.connect(settings) as platform:
        await platform.queue_redis.flushall()
        await platform.cache_redis.flushall()
        inbox.reset()
        await seed_people(opened)
        platform.services, platform.inbox = opened, inbox
        platform.queue_server, platform.cache_server = queue_server, cache_server
        yield platform


@pytest.fixture
async def relay(platform: Platform) -> AsyncIterator[Relay]:
    """A relay whose loops do not run: tests call them."""
    async with Relay(platform.services) as relay:
        yield relay


@pytest.fixture
async def at_work(platform: Platform) -> AsyncIterator[None]:
    """A relay and the workers, running in this process."""
    async with workers(), Relay(platform.services) as relay:
        running = asyncio.create_task(relay.run())
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
