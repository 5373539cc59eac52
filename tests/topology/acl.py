"""Which commands each role needs, found by watching it.

`python -m tests.topology.acl --write` puts them into the docs.
"""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis.asyncio

from tests.topology.everything import ROLES, stage
from toril import AuthenticationError, Connection
from toril.embedded import EmbeddedServer
from toril.scripts.loader import load

__all__ = ["DOC", "Seen", "derive", "rule", "written"]

ROOT: Final = Path(__file__).resolve().parents[2]
DOC: Final = ROOT / "docs/how-to/production-connections.md"
# Commands of which a user gets single subcommands.
_CONTAINERS: Final = frozenset(("client", "config", "script", "acl", "cluster"))
_CALL: Final = re.compile(r"redis\.p?call\('([A-Z]+)'|redis\.p?call\(side")


@dataclass
class Seen:
    """What one role has been seen doing.

    Attributes:
        commands: Each command with one set of its arguments.
        scripts: The names of the scripts that it has run.
    """

    commands: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    scripts: set[str] = field(default_factory=set[str])

    def needed(self) -> set[str]:
        """The commands seen, and what these scripts do on paths that are rare: a legacy key, a list of 10,000."""
        in_scripts = {
            name.lower() for script in self.scripts for name in _CALL.findall(load(script).text) if name
        }
        # A server that has forgotten a script is sent its text.
        return {*self.commands, *in_scripts, *(("eval",) if self.scripts else ())}


async def derive(server: EmbeddedServer, prefix: str) -> dict[str, Seen]:
    """Let every role do what it does, and watch the server meanwhile."""
    names = {load(path.stem).sha: path.stem for path in (ROOT / "src/toril/scripts").glob("*.lua")}
    watcher: Any = redis.asyncio.Redis.from_url(server.url, decode_responses=True, protocol=2)
    seen: dict[str, Seen] = {}
    for role, act in ROLES.items():
        seen[role] = Seen()
        async with Connection(server.url) as connection:
            await stage(role, watcher, connection, prefix)
        async with watcher.monitor() as monitor, Connection(server.url) as connection:
            reading = asyncio.create_task(_read(monitor, seen[role], names))
            await act(connection, prefix)
            await connection.execute("ECHO", "that was it")
            await asyncio.wait_for(reading, 15)
        await _add_what_is_hidden(server, role, seen[role], prefix, watcher)
    await watcher.aclose()
    return seen


async def _add_what_is_hidden(server: EmbeddedServer, role: str, seen: Seen, prefix: str, admin: Any) -> None:
    """What MONITOR does not show, such as CLIENT LIST, is denied to a user with the rest, and then it is known."""
    for _ in range(5):
        await admin.execute_command("ACL", "LOG", "RESET")
        await admin.execute_command(*rule(role, seen.needed(), f"{prefix}:*").split(" "))
        async with Connection(server.url) as connection:
            await stage(role, admin, connection, prefix)
        try:
            async with Connection(f"redis://toril-{role}:password@127.0.0.1:{server.port}") as connection:
                await ROLES[role](connection, prefix)
            return
        except AuthenticationError:
            log: Any = await admin.execute_command("ACL", "LOG", 1)
            denied = str(dict(log[0])["object"] if isinstance(log[0], dict) else log[0][7])
            seen.commands[denied] = denied.upper().split("|")


async def _read(monitor: Any, seen: Seen, names: dict[str, str]) -> None:
    while True:
        line: str = await monitor.connection.read_response()
        args = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
        name = args[0].lower()
        if name == "echo":
            return
        if name in ("eval", "evalsha"):
            known = [script for sha, script in names.items() if args[1].startswith(sha)]
            seen.scripts.update(known or [_named(args[1], names)])
        if name in _CONTAINERS:
            name = f"{name}|{args[1].lower()}"
        seen.commands.setdefault(name, args)


def _named(text: str, names: dict[str, str]) -> str:
    """Which script a text is; the server shows it with its line ends escaped."""
    plain = text.encode().decode("unicode_escape").encode("latin-1").decode()
    return next(name for name in names.values() if load(name).text == plain)


def rule(role: str, commands: set[str], keys: str = "bull:*") -> str:
    """What makes a user with these commands."""
    listed = " ".join(f"+{name}" for name in sorted(commands))
    pattern = f"~{keys}"
    return f"ACL SETUSER toril-{role} on >password resetkeys {pattern} resetchannels -@all {listed}"


def written() -> dict[str, str]:
    """The rules in the docs, by their roles."""
    found = re.findall(r"ACL SETUSER toril-(\w+) on .*", DOC.read_text())
    lines = re.findall(r"ACL SETUSER toril-\w+ on .*", DOC.read_text())
    return dict(zip(found, lines, strict=True))


async def _main() -> None:
    with EmbeddedServer() as server:
        seen = await derive(server, "bull")
    text = DOC.read_text()
    for role, found in seen.items():
        line = rule(role, found.needed())
        print(f"{line}\n  scripts: {', '.join(sorted(found.scripts))}")
        print("  rare:", ", ".join(sorted(found.needed() - set(found.commands))))
        pattern = rf"ACL SETUSER toril-{role} on.*"
        # A rule holds no backslash, so it stands for itself.
        text = re.sub(pattern, line, text)
    if "--write" in sys.argv:
        DOC.write_text(text)


if __name__ == "__main__":
    asyncio.run(_main())
