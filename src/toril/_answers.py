"""Answers, held to what a server gives to what it was asked.

What stands between the server and the program (a proxy, a balancer, a server of another kind) may answer anything. Then
the caller hears so, in place of an error of Python's from wherever the answer is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from .errors import ConnectionLostError

__all__ = ["ask", "ask_all", "nonsense", "understood"]

T = TypeVar("T")


class _Server(Protocol):
    async def execute(self, *args: Any) -> Any: ...

    async def execute_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]: ...


async def ask(server: _Server, kind: type[T], *command: Any) -> T:
    """Send one command; return its answer, which is of this kind.

    Raises:
        ConnectionLostError: No answer came, or one of another kind.
        TorilError: As `Connection.execute`.
    """
    return understood(kind, await server.execute(*command), _named(command))


async def ask_all(server: _Server, kind: type[T], commands: Sequence[tuple[Any, ...]]) -> T:
    """Send several commands at once; return their answers, which together are of this kind; raises as `ask`."""
    return understood(kind, await server.execute_all(commands), _named(commands[0]))


def understood(kind: type[T], answer: Any, asked: str) -> T:
    """Return an answer as what it is to be: a list, a tuple, text, a number, or numbers that the server writes as text.

    Args:
        kind: What it is to be.
        answer: What has come over the wire.
        asked: What was asked for, with the queue or the key, for the error.

    Raises:
        ConnectionLostError: It is something else.
    """
    try:
        return msgspec.convert(answer, kind, strict=False)
    except msgspec.ValidationError as error:
        raise nonsense(asked, str(error).replace("`", "").lower()) from None


def nonsense(asked: str, why: str) -> ConnectionLostError:
    """Return the error for an answer that says nothing. It never quotes the answer, which may be private."""
    return ConnectionLostError(
        f"{asked}: the answer is none that a server gives ({why}); is something between it and this program? "
        "What was asked for may or may not have been done"
    )


def _named(command: tuple[Any, ...]) -> str:
    # The key behind it names the queue.
    return " ".join(map(str, command[:2]))
