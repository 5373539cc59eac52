"""A queue whose scripts are called one by one, with the time as an argument."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .room import Room, open_room


@pytest.fixture
async def room(server_url: str, prefix: str) -> AsyncIterator[Room]:
    async with open_room(server_url, prefix) as room:
        yield room


@pytest.fixture
async def other_room(server_url: str, prefix: str) -> AsyncIterator[Room]:
    """A second queue, for comparisons."""
    async with open_room(server_url, prefix, "other") as room:
        yield room
