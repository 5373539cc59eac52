"""What tests share: real servers, a prefix of each test's own, and a look at what a test left behind.

`pytest --server valkey|redis|both` chooses the servers; every test that asks for one, directly or through a
fixture, runs once against each. A run has one server of a kind, or one for each process of pytest-xdist.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import hypothesis
import pytest
import redis
import redis.asyncio

from tests.fuzz import examples
from toril import ConfigurationError, Queue
from toril.embedded import EmbeddedServer, find_binary

KINDS = ("valkey", "redis")

# Without a deadline: the machine may be busy with other tests, which is no fault of the example.
hypothesis.settings.register_profile(
    "toril", parent=hypothesis.settings(), deadline=None, max_examples=examples(100)
)
hypothesis.settings.load_profile("toril")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        choices=[*KINDS, "both"],
        default="valkey",
        help="which servers the tests run against; default: valkey",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" in metafunc.fixturenames:
        wanted = str(metafunc.config.getoption("--server"))
        kinds = KINDS if wanted == "both" else (wanted,)
        metafunc.parametrize("server_kind", kinds, scope="session")


@pytest.fixture(scope="session")
def server(server_kind: str) -> Iterator[EmbeddedServer]:
    """A server in memory, shared by many tests: do not stop it, pause it or change its settings."""
    binary = shutil.which("redis-server")
    if server_kind == "redis" and binary is None:
        pytest.skip("redis-server is not on the PATH: apt-get install redis-server")
    if server_kind == "valkey":
        try:
            binary = str(find_binary())
        except ConfigurationError as error:
            pytest.skip(str(error))
    with EmbeddedServer(binary=binary) as server:
        yield server


@pytest.fixture
def server_url(server: EmbeddedServer) -> str:
    return server.url


@pytest.fixture
def prefix(server: EmbeddedServer) -> Iterator[str]:
    """A key prefix of this test's own. What it holds is removed; what is left beside it fails the test."""
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    yield prefix
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        leaked = sorted(key for key in client.scan_iter(count=1000) if not key.startswith(f"{prefix}:"))
        client.flushall()
    assert not leaked, f"keys outside the test's prefix: {leaked}"


@pytest.fixture
async def client(server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """A plain client, to seed and to read what stands in the server."""
    async with redis.asyncio.Redis.from_url(server.url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def queue(server_url: str, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("tests", connection=server_url, prefix=prefix) as queue:
        yield queue


class TurnedClock:
    """A clock that stands still until a test turns it."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def turn(self, by: timedelta | float) -> int:
        """Go on by a duration, in seconds if it is a number, and return the new time."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self._now_ms += round(seconds * 1000)
        return self._now_ms


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock(int(time.time() * 1000))
