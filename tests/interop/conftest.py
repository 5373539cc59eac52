"""One Node process a session, and the queue of `tests/conftest.py` as Node opens it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from toril.embedded import EmbeddedServer

from .node import Node, NodeEvents, NodeQueue, why_no_node


@pytest.fixture(scope="session")
def node(server: EmbeddedServer) -> Iterator[Node]:
    """The reference client's process, on the session's server."""
    reason = why_no_node()
    if reason is not None:
        pytest.skip(reason)
    node = Node(server.url)
    yield node
    node.stop()


@pytest.fixture
async def node_queue(node: Node, prefix: str) -> AsyncIterator[NodeQueue]:
    """The queue that both sides share, as Node opens it."""
    async with NodeQueue(node, "tests", prefix=prefix) as queue:
        yield queue


@pytest.fixture
async def node_events(node: Node, prefix: str) -> AsyncIterator[NodeEvents]:
    """Node's listener on the shared queue, from the first event on."""
    async with NodeEvents(node, "tests", prefix=prefix) as events:
        yield events
