"""Adding a job, and waiting until more than one memory has it: on a replica, or on the server's disk.

`WAIT` counts the replicas that have *received* what this connection wrote; they acknowledge before they sync, and
a fail-over may still choose another. `fsynced` rests on `appendfsync always`, with which a server answers after
its disk has. `WAITAOF` alone is no proof: Valkey 9.1 was seen to answer it before the sync, under `everysec`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from ._answers import ask, nonsense, understood
from .codec import pairs, read_int
from .connection import Connection
from .errors import ConfigurationError, ConnectionLostError, DurabilityError, ServerRefusedError, TorilError

__all__ = ["add_durably"]

_PATIENCE_MS: Final = 5_000
# How long it is believed that the server's settings are what they were.
_BELIEVED_FOR: Final = 60.0

_checked: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()


async def add_durably(
    connection: Connection, add: Sequence[Any], durability: str, where: str, ids: Sequence[str]
) -> list[Any]:
    """Run the command that adds jobs, and wait on the same connection until it is as durable as asked.

    Args:
        connection: The server.
        add: The command.
        durability: See `Durability`.
        where: The queue, for errors.
        ids: The ids that are known beforehand, for errors.

    Returns:
        The command's answer.

    Raises:
        ConfigurationError: The server does not sync before it answers; nothing was added.
        DurabilityError: The jobs are added, and not known to be as durable as that.
        TorilError: As `Connection.execute`, about adding itself.
    """
    if durability == "fsynced":
        await _check_fsync(connection, where)
        wait: tuple[Any, ...] = ("WAITAOF", 1, 0, _PATIENCE_MS)
    else:
        wait = ("WAIT", 1, _PATIENCE_MS)
    answer, reached = await connection.execute_then(tuple(add), wait, timeout=_PATIENCE_MS / 1000 + 10)
    answer = understood(list[str | int], answer, f"{where}: adding")
    if len(answer) != len(ids):
        raise nonsense(f"{where}: adding", f"of {len(ids)} jobs it is about {len(answer)}")
    added = [part for part in answer if isinstance(part, str)] or list(ids)
    if (
        isinstance(reached, ServerRefusedError)
        and durability == "fsynced"
        and "unknown command" in str(reached)
    ):
        # A server before 7.2. It has answered, and with this setting it answers after the sync.
        return list(answer)
    if isinstance(reached, TorilError):
        raise DurabilityError(where, added, durability, 0, str(reached)) from reached
    # WAIT says how many replicas, WAITAOF how many disks and then how many replicas.
    acknowledged = cast("list[object]", reached if isinstance(reached, list) else [reached])
    count = (read_int(acknowledged[0]) if acknowledged else None) or 0
    if count < 1:
        says = "the server has not synced it" if durability == "fsynced" else "no replica has acknowledged it"
        raise DurabilityError(where, added, durability, count, f"{says} within {_PATIENCE_MS / 1000:g} s")
    return list(answer)


async def _check_fsync(connection: Connection, where: str) -> None:
    if time.monotonic() - _checked.get(connection, -_BELIEVED_FOR) < _BELIEVED_FOR:
        return
    try:
        settings = await ask(connection, list[str], "CONFIG", "GET", "append*")
    except ConnectionLostError:
        raise
    except TorilError as error:
        raise ConfigurationError(
            f"{where}: durability='fsynced' needs to know `appendfsync`, and the server does not tell ({error}); "
            "give the user `+config|get`"
        ) from error
    known = pairs(settings)
    if known.get("appendonly") != "yes" or known.get("appendfsync") != "always":
        raise ConfigurationError(
            f"{where}: durability='fsynced' needs a server with `appendonly yes` and `appendfsync always`; "
            f"this one has {known.get('appendonly')!r} and {known.get('appendfsync')!r}, and nothing was added"
        )
    _checked[connection] = time.monotonic()
