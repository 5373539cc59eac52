"""Plays cells, one JSON line each. `python -m chaos` is the way in."""

from __future__ import annotations

import asyncio
import os
import random
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from .cells import CELLS, Cell
from .checker import Verdict, judge
from .endings import check_leftovers
from .stage import Client, NoLoadError, SkipCellError, Stage, staged

__all__ = ["OVER", "play", "play_all"]

DEADLINE = 240.0
"""Seconds for a cell, whatever happens."""
OVER = "the time for the whole matrix was over"
UNKNOWN = 30.0
"""Seconds that a cell is thought to take which has not been played before."""


async def play(
    cell: Cell, client: Client, seed: int, scale: float, slack: float = 1.0, end: float | None = None
) -> dict[str, Any]:
    """Play one cell and judge it.

    Args:
        cell: Which.
        client: Whose workers and producer.
        seed: Of all that is left to chance.
        scale: Of its sizes.
        slack: By which recoveries may take longer, on a machine that has other things to do.
        end: When time is over, by the monotonic clock; None for never.

    Returns:
        Its line. `status` is pass, fail, or skip where the cell cannot run here or was not played to its end, with the
        reason in `note`.
    """
    line: dict[str, Any] = {
        "cell": cell.key,
        "fault": cell.fault,
        "client": client,
        "seed": seed,
        "scale": scale,
    }
    began = time.monotonic()
    verdict = Verdict()
    limit = asyncio.timeout(None if end is None else end - began)
    try:
        if end is not None and began >= end:
            raise SkipCellError(OVER)
        async with limit, staged(client, cell.plan, seed, scale, begin=cell.begins) as stage:
            stage.slack, stage.within = slack, cell.within * slack
            await _harm(cell, stage)
            line["drain_s"] = round(await stage.drain(), 2)
            async with asyncio.timeout(DEADLINE):
                verdict = await judge(stage)
                await check_leftovers(stage, verdict)
            line["facts"] = stage.facts
            if verdict.violations and os.environ.get("CHAOS_WORDS"):
                print(stage.words())
        line["status"] = "fail" if verdict.violations else "pass"
    except SkipCellError as error:
        line["status"], line["note"] = "skip", str(error)
    except NoLoadError as error:
        # Of toril it is a fault that it did not begin; of the others nothing is known then.
        line["status"], line["note"] = "fail" if client == "toril" else "skip", str(error)[:2000]
        verdict.violations += ["the load did not begin"] if client == "toril" else []
    except Exception as error:
        if limit.expired():
            line["status"], line["note"] = "skip", OVER
        else:
            line["status"], line["note"] = "fail", f"{type(error).__name__}: {error}"[:2000]
            verdict.violations.append("the cell broke off")
            traceback.print_exc()
    line |= verdict.dict()
    line["seconds"] = round(time.monotonic() - began, 1)
    line["load_average"] = round(os.getloadavg()[0], 1)
    return line


async def _harm(cell: Cell, stage: Stage) -> None:
    """Do what the cell does. Where that breaks off, what has happened until then is judged all the same."""
    try:
        async with asyncio.timeout(DEADLINE):
            await cell.play(stage)
            await stage.all_run()
    except (SkipCellError, NoLoadError):
        raise
    except Exception as error:
        stage.faults.append(f"the cell broke off: {type(error).__name__}: {str(error)[:200]}")
        traceback.print_exc()


async def play_all(
    wanted: list[tuple[str, Client]],
    seed: int,
    scale: float,
    slack: float,
    at_once: int,
    tell: Callable[[dict[str, Any]], None],
    *,
    minutes: float,
    expected: Mapping[tuple[str, Client], float],
) -> list[dict[str, Any]]:
    """Play cells, telling each line as it comes: first those that need the machine alone, then so many at once.

    Args:
        wanted: Which, for whom, in the order of the table.
        seed: Of all that is left to chance, in whatever order they are played.
        scale: Of their sizes.
        slack: By which recoveries may take longer.
        at_once: How many run beside each other.
        tell: Called with each line.
        minutes: After which nothing begins, and what still runs is broken off: those are not green.
        expected: Seconds that cells have taken before; the longest begin first, so that none is waited for at the end.
    """
    chance = random.Random(seed)
    seeds = {pair: chance.randrange(2**31) for pair in wanted}
    free = asyncio.Semaphore(at_once)
    end = time.monotonic() + 60 * minutes

    async def one(pair: tuple[str, Client]) -> dict[str, Any]:
        async with free:
            key, client = pair
            line = await play(CELLS[key], client, seeds[pair], scale, slack, end)
            tell(line)
            return line

    def alone(pair: tuple[str, Client]) -> bool:
        return CELLS[pair[0]].alone

    lines = [await one(pair) for pair in wanted if alone(pair)]
    longest_first = sorted(wanted, key=lambda pair: -expected.get(pair, UNKNOWN))
    return lines + await asyncio.gather(*(one(pair) for pair in longest_first if not alone(pair)))
