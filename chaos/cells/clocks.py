"""Harm to clocks: workers whose clock is wrong. The ledger's clock is the monotonic one, which nobody turns."""

from __future__ import annotations

import shutil

from chaos.stage import Plan, SkipCellError, Stage

from ._registry import cell


@cell(
    "28", "workers whose clocks are an hour ahead, an hour behind, and right", Plan(workers=0), begins=False
)
async def wrong_clocks(stage: Stage) -> None:
    """No delayed job may start early or an hour late, and no lock may be taken for old."""
    faketime = shutil.which("faketime")
    if faketime is None:
        raise SkipCellError("faketime is not installed: apt-get install faketime")
    stage.no_stalls = True
    for offset in ("+1h", "-1h"):
        stage.start_worker(under=["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", faketime, "-f", offset])
    stage.start_worker()
    stage.start_producer()
    await stage.ready(40, seconds=60)
    await stage.pause(10 * stage.scale)
