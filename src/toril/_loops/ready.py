"""A worker's first word with its server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from .._server import look_at_server
from ..connection import Connection
from ..errors import ConfigurationError, TorilError
from .patience import Patience

__all__ = ["get_ready"]


async def get_ready(
    connection: Connection,
    queue: str,
    stop: asyncio.Event,
    tried: asyncio.Event,
    tell: Callable[..., None],
    *,
    skip_version_check: bool,
) -> None:
    """Reach the server for the first time, however long it takes to come up.

    Args:
        connection: To it.
        queue: The queue's name, for the log.
        stop: Ends the trying.
        tried: Set after the first try, whatever came of it.
        tell: Calls the worker's listeners: (event, *arguments).
        skip_version_check: Take any server.

    Raises:
        ConfigurationError: The settings are wrong, or the password.
    """
    patience = Patience(f"worker of queue {queue!r}: connecting")
    while not stop.is_set():
        try:
            await connection.learn_time()
            await look_at_server(connection, skip_version_check=skip_version_check)
        except ConfigurationError:
            # Now this is a mistake; later a refused password may be one that is being changed.
            raise
        except TorilError as error:
            tried.set()
            tell("error", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience.failed(error)):
                    await stop.wait()
        else:
            patience.worked()
            tried.set()
            return
