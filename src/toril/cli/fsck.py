"""`toril doctor --fsck`: are the invariants of the queues' keys true, and what of it can be mended?"""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from toril import Connection, Queue, find_queues
from toril.cli.common import PROBLEM, complain, confirm, errors_explained
from toril.cli.output import console, print_json, printable
from toril.fsck import Violation, check, plan, repair

__all__ = ["look_at_queues"]

Found = dict[str, list[Violation]]


def look_at_queues(
    url: str | None, prefix: str, names: list[str], *, repair: bool, yes: bool, as_json: bool
) -> None:
    """Check queues, all under the prefix without names; say what is wrong, and mend it if asked.

    Exits with 0 if nothing is wrong or all has been mended, else with 1.
    """
    with errors_explained(as_json=as_json):
        found = asyncio.run(_look(url, prefix, names, as_json=as_json))
    mendable = [one for violations in found.values() for one in violations if plan(one)]
    if not as_json:
        _show(found, repair=repair)
    mended: set[Violation] = set()
    if repair and mendable:
        confirm(f"Mend {_count(len(mendable))} as shown?", yes=yes, as_json=as_json)
        with errors_explained(as_json=as_json):
            mended, found = asyncio.run(_mend(url, prefix, found))
        if not as_json:
            console().print(f"\n{len(mended)} mended; now:", markup=False)
            _show(found, repair=False)
    if as_json:
        print_json(
            {
                "ok": not any(found.values()),
                "mended": len(mended),
                "queues": {name: [_row(one) for one in violations] for name, violations in found.items()},
            }
        )
    raise typer.Exit(PROBLEM if any(found.values()) else 0)


async def _look(url: str | None, prefix: str, names: list[str], *, as_json: bool) -> Found:
    async with Connection(url) as connection:
        asked = names or await find_queues(connection, prefix)
        found = {name: await check(connection, name, prefix) for name in asked}
        for name in names:
            # A mistyped one must not look well; what is left of one that is gone is still looked at.
            if not found[name] and not await Queue(name, connection=connection, prefix=prefix).get_meta():
                complain(f"no queue {name!r} under the prefix {prefix!r}", PROBLEM, as_json=as_json)
        return found


async def _mend(url: str | None, prefix: str, found: Found) -> tuple[set[Violation], Found]:
    mended: set[Violation] = set()
    async with Connection(url) as connection:
        for name, violations in found.items():
            queue = Queue(name, connection=connection, prefix=prefix)
            mended |= {one for one in violations if await repair(queue, one)}
        return mended, {name: await check(connection, name, prefix) for name in found}


def _show(found: Found, *, repair: bool) -> None:
    out = console()
    for name, violations in found.items():
        out.print(printable(f"{name}: {_count(len(violations)) if violations else 'in order'}"), markup=False)
        for one in violations:
            out.print(printable(f"  {one}"), markup=False)
            says = plan(one)
            if says:
                out.print(f"    -> {'will ' if repair else '--repair would '}{says}", markup=False)
            else:
                out.print("    -> needs a person: it could be mended in more than one way", markup=False)
    if not found:
        out.print("no queues here; the prefix may be another", markup=False)


def _row(violation: Violation) -> dict[str, Any]:
    return {
        "invariant": violation.invariant,
        "key": violation.key,
        "text": violation.text,
        "repair": plan(violation),
    }


def _count(number: int) -> str:
    return f"{number} fault{'' if number == 1 else 's'}"
