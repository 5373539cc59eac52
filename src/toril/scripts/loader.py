"""Loads the Lua scripts: resolves their includes, names them by hash, sends them when they are unknown."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol

from ..errors import ScriptForgottenError

__all__ = ["Executor", "Script", "load"]

_INCLUDE = re.compile(r'^--- @include "(?P<path>[a-z_/]+)"\n', re.MULTILINE)


class Executor(Protocol):
    """Whatever sends a command to the server and waits for its answer."""

    async def execute(self, *args: Any) -> Any:
        """Send one command.

        Raises:
            ScriptForgottenError: EVALSHA named a script that the server does not have.
            TorilError: The call failed; see `errors`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """One transition.

    Attributes:
        name: The file's name without its ending.
        text: Its source with all includes in place.
        sha: The hash by which the server knows it.
    """

    name: str
    text: str
    sha: str

    async def run(self, executor: Executor, keys: tuple[str, ...], *args: Any) -> Any:
        """Run it by its hash; where the server has forgotten it, send the text, which makes it known again."""
        try:
            return await executor.execute("EVALSHA", self.sha, len(keys), *keys, *args)
        except ScriptForgottenError:
            return await executor.execute("EVAL", self.text, len(keys), *keys, *args)


@cache
def load(name: str) -> Script:
    """Return the script of this name. Each include stands in it once, before its first user."""
    text = _resolve(f"{name}.lua", set())
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _resolve(path: str, seen: set[str]) -> str:
    source = resources.files(__name__.rpartition(".")[0]).joinpath(path).read_text(encoding="utf-8")

    def include(match: re.Match[str]) -> str:
        included = f"{match['path']}.lua"
        if included in seen:
            return ""
        seen.add(included)
        return _resolve(included, seen)

    return _INCLUDE.sub(include, source)
