"""Plays cells, one JSON line each. `python -m chaos` is the way in."""

from __future__ import annotations

import asyncio
import os
import random
import time
import traceback
from collections.abc import Callable
from typing import Any

from .cells import CELLS, Cell
from .checker import Verdict, judge
from .endings import check_leftovers
from .stage import Client, NoLoadError, SkipCellError, Stage, staged

__all__ = ["play", "play_all"]

DEADLINE = 240.0
"""Seconds for a cell, whatever happens."""


async def play(cell: Cell, client: Client, seed: int, scale: float, slack: float = 1.0) -> dict[str, Any]:
    """Play one cell and judge it.

    Args:
        cell: Which.
        client: Whose workers and producer.
        seed: Of all that is left to chance.
        scale: Of its sizes.
        slack: By which recoveries may take longer, on a machine that has other things to do.

    Returns:
        Its line. `status` is pass, fail, or skip where the cell cannot run here, with the reason in `note`.
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
    try:
        async with staged(client, cell.plan, seed, scale, begin=cell.begins) as stage:
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
) -> list[dict[str, Any]]:
    """Play cells, so many at once, telling each line as it comes."""
    chance = random.Random(seed)
    seeds = [chance.randrange(2**31) for _ in wanted]
    free = asyncio.Semaphore(at_once)

    async def one(key: str, client: Client, cell_seed: int) -> dict[str, Any]:
        async with free:
            line = await play(CELLS[key], client, cell_seed, scale, slack)
            tell(line)
            return line

    return await asyncio.gather(
        *(one(key, client, cell_seed) for (key, client), cell_seed in zip(wanted, seeds, strict=True))
    )
