"""What a runner runs, and where: kept in `running.json` for other programs, printed as a table for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict, cast

from dev.console import Console

__all__ = ["Account", "Description", "read_description", "shown", "table", "write_description"]


class Account(TypedDict):
    """Somebody to sign in as."""

    email: str
    password: str
    who: str


class Description(TypedDict):
    """The content of `running.json`; it is there as long as everything runs."""

    pid: int
    dir: str
    platform: str
    mail: str
    smtp: str
    redis: str
    mongo: str
    processes: dict[str, int]
    accounts: list[Account]
    notes: list[str]


def write_description(dir: Path, description: Description) -> None:
    unfinished = dir / "running.json.part"
    unfinished.write_text(json.dumps(description, indent=2) + "\n")
    unfinished.replace(dir / "running.json")


def read_description(dir: Path) -> Description | None:
    """None where nothing runs, or not everything yet."""
    try:
        return cast(Description, json.loads((dir / "running.json").read_text()))
    except (OSError, ValueError):
        return None


def table(description: Description, console: Console) -> str:
    """Lay out where everything is."""
    dir = Path(description["dir"])
    lines = [
        _row(console, "Platform", console.strong(description["platform"])),
        _row(console, "Mail", f"{description['mail']}  {console.faint('whatever the platform sends')}"),
    ]
    width = max((len(account["email"]) for account in description["accounts"]), default=0)
    passwords = {account["password"] for account in description["accounts"]}
    for index, account in enumerate(description["accounts"]):
        title = "" if index else "Sign in as"
        words = f"{account['email']:<{width}}  {console.faint(account['who'])}"
        lines.append(_row(console, title, words))
    if passwords:
        lines.append(
            _row(console, "Password", f"{' or '.join(sorted(passwords))}  {console.faint('for everyone')}")
        )
    processes = "  ".join(f"{name} {pid}" for name, pid in description["processes"].items())
    lines += [
        "",
        _row(console, "Redis", description["redis"]),
        _row(console, "MongoDB", description["mongo"]),
        _row(console, "Logs", shown(dir / "logs")),
        _row(console, "Processes", f"{processes}  {console.faint('kill one: it comes back')}"),
    ]
    if description["notes"]:
        lines += ["", *(f"  {console.strong('Note')}  {note}" for note in description["notes"])]
    return "\n".join(lines)


def _row(console: Console, title: str, content: str) -> str:
    return f"  {console.faint(f'{title:<11}')} {content}"


def shown(path: Path) -> str:
    """A path as somebody in the current directory would type it, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
