"""A bench on the session's server: the reference client with a clock of its own, and toril beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop.node import Node, why_no_node
from toril.embedded import EmbeddedServer

from .bench import Bench, open_bench


@pytest.fixture(scope="session")
def turned_node(server: EmbeddedServer) -> Iterator[Node]:
    """A Node process whose clock is turned by programs, so that nobody else may use it."""
    reason = why_no_node()
    if reason is not None:
        pytest.skip(reason)
    node = Node(server.url)
    yield node
    node.stop()


@pytest.fixture
async def bench(server_url: str, turned_node: Node, prefix: str) -> AsyncIterator[Bench]:
    async with open_bench(server_url, turned_node, prefix) as bench:
        yield bench
