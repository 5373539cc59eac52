"""The fault drivers count right, and the worst and the best of them are what they must be."""

from __future__ import annotations

import asyncio
import random

import pytest

import chaos.persistence as persistence
from chaos.persistence import SETTINGS, SINCE_SNAPSHOT, Outcome, play
from toril.embedded import find_binary
from toril.errors import ConfigurationError

DEADLINE = 90.0


async def one_round(name: str) -> Outcome:
    try:
        find_binary()
    except ConfigurationError as error:
        pytest.skip(str(error))
    async with asyncio.timeout(DEADLINE):
        outcome = await play(SETTINGS[name], random.Random())
    assert outcome.acknowledged > 0, "no job was added before the crash"
    return outcome


async def test_without_persistence_a_kill_loses_all_jobs() -> None:
    """A server that keeps nothing has nothing after `kill -9`."""
    outcome = await one_round("none")

    assert outcome.lost == outcome.acknowledged


async def test_a_kill_after_a_snapshot_loses_what_came_later() -> None:
    """With snapshots only, what was added before the last one is there, and what came after it is not."""
    outcome = await one_round("rdb")

    assert 0 < outcome.lost < outcome.acknowledged
    assert outcome.window >= SINCE_SNAPSHOT * 0.9


async def test_a_stop_with_snapshots_loses_nothing() -> None:
    """A server that is told to stop saves first."""
    assert (await one_round("rdb-stop")).lost == 0


async def test_a_power_loss_costs_what_was_not_synced() -> None:
    """With `everysec`, a log that ends where the last sync ended is loaded, with the jobs up to there."""
    try:
        outcome = await one_round("everysec-power")
    except persistence.UnsupportedError as error:
        pytest.skip(str(error))

    assert outcome.window < 3.0


async def test_with_a_sync_before_each_answer_a_kill_loses_nothing() -> None:
    """With `appendfsync always`, a job whose `add` returned is there after `kill -9`."""
    assert (await one_round("always")).lost == 0


def test_the_table_is_replaced_and_nothing_else() -> None:
    """Writing the table keeps the text around it."""
    page = f"before\n{persistence.BEGIN}\nold\n{persistence.END}\nafter\n"

    written = persistence.rewrite(page, persistence.table({"none": Outcome(10, 10, 0, 1.0, 2.0)}))

    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert "| nothing | `kill -9` | 10 | **all** | everything | 5 |" in written


def test_the_page_has_a_place_for_the_table() -> None:
    """The page that the driver writes to has its marks."""
    page = persistence.PAGE.read_text()

    assert persistence.rewrite(page, "x") != page


async def test_when_time_is_over_no_round_begins() -> None:
    """A table that may take no time says nothing, and does not pretend to."""
    assert await persistence.measure(["none", "always"], 1, random.Random(1), 0) == ({}, 0)
