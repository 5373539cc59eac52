"""Mending what the look at a queue has found: each fault once, after another look, and nothing that needs a guess."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from tests.test_fsck import BROKEN, filled, look, send
from toril import Queue
from toril.fsck import plan, repair

Client: TypeAlias = Any

__all__ = ["filled"]

WRONG_TYPE = "a key of another type"


async def break_it(queue: Queue, client: Client, how: str) -> None:
    base = queue.keys.base
    pending = f"repeat:tick:{int(await client.zscore(base + 'repeat', 'tick') or 0)}"
    for command in BROKEN[how][2]:
        told = command.replace("PENDING", pending).replace("@", base).replace("<", f"{queue.prefix}:")
        await send(client, told)


async def dump(client: Client, base: str) -> dict[str, bytes]:
    keys = sorted([key async for key in client.scan_iter(match=f"{base}*")])
    return {key: await client.execute_command("DUMP", key, NEVER_DECODE=True) for key in keys}


@pytest.mark.parametrize("how", sorted(set(BROKEN) - {WRONG_TYPE}))
async def test_what_can_be_mended_is_mended(filled: Queue, client: Client, how: str) -> None:
    """Afterwards it is not found any more, and no other fault has come; what needs a person stays as it is."""
    await break_it(filled, client, how)
    found = await look(filled)
    before = await dump(client, filled.keys.base)

    mended = [await repair(filled, one) for one in found]

    left = await look(filled)
    if all(plan(one) is None for one in found):
        assert not any(mended)
        assert await dump(client, filled.keys.base) == before
    else:
        assert any(mended)
        assert [one for one in left if plan(one)] == []
        assert {str(one) for one in left} <= {str(one) for one in found}


@pytest.mark.parametrize("how", sorted(set(BROKEN) - {WRONG_TYPE}))
async def test_what_has_mended_itself_is_left_alone(filled: Queue, client: Client, how: str) -> None:
    """Between the look and the repair the queue went on: nothing is written. So a second repair changes nothing."""
    await break_it(filled, client, how)
    found = await look(filled)
    for one in found:
        await repair(filled, one)
    before = await dump(client, filled.keys.base)

    again = [await repair(filled, one) for one in found]

    assert not any(again)
    assert await dump(client, filled.keys.base) == before


async def test_around_a_key_of_another_type_nothing_is_mended(filled: Queue, client: Client) -> None:
    """It is reported, and left to a person."""
    await break_it(filled, client, WRONG_TYPE)
    before = await dump(client, filled.keys.base)

    assert not any([await repair(filled, one) for one in await look(filled)])
    assert await dump(client, filled.keys.base) == before


async def test_a_parent_that_is_let_go_has_its_childs_value(filled: Queue, client: Client) -> None:
    """A child that had completed without its parent's hearing of it is not lost on the way."""
    await break_it(filled, client, "a child that has completed")
    child = f"{filled.prefix}:elsewhere:child"
    await client.hset(child, "returnvalue", '"late"')

    for one in await look(filled):
        await repair(filled, one)

    parent = await filled.get_job_or_raise("parent")
    assert await parent.get_children_values() == {child: "late"}
    assert await parent.get_state() == "waiting"
