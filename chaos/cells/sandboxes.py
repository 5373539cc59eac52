"""Harm inside the processes of sandboxed processors: they crash, are killed, or do not listen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

from chaos.ledger import read
from chaos.stage import QUEUE, Plan, Stage
from toril import Queue

from ._registry import cell

# Each child is a process: few at a time, and locks that survive a machine that starts many of them.
SANDBOXED: Final[dict[str, Any]] = {"is_sandboxed": True, "concurrency": 2, "lock_duration": 10}
EVERY: Final = 20
HARMED: Final = [f"j-{number}" for number in range(0, 100_000, EVERY)]
"""Jobs that end badly; the producer of a cell comes nowhere near the last of them."""

REASONS: Final = {
    "segfault": "the processor's process was killed by SIGSEGV",
    "exit": "the processor's process ended with exit code 3",
    "killed": "the processor's process was killed by SIGKILL, perhaps by the system, for want of memory",
    # The allocation fails, and the write to what was not allocated is what ends the process.
    "memory": "the processor's process was killed by SIGSEGV",
    "deaf": "timed out after 1 s",
}


@cell(
    "33",
    "sandboxed, 1 job in 20 crashes its process: SIGSEGV, `os._exit`, `ulimit` of memory, SIGKILL",
    Plan(
        rate=30,
        worker=SANDBOXED,
        producer={"block_every": EVERY, "harms": ["segfault", "exit", "memory", "killed"]},
        settle=60,
    ),
    clients=("toril",),
)
async def crash_children(stage: Stage) -> None:
    """Only those jobs fail, each once, with what has ended their process as the reason."""
    await _harm(stage)


@cell(
    "35b",
    "sandboxed, 1 job in 20 holds the GIL for ever and ignores SIGTERM, with a limit of 1 s for each attempt",
    Plan(
        rate=20,
        worker={**SANDBOXED, "timeout": 1},
        producer={"block_every": EVERY, "harms": ["deaf"]},
        settle=60,
    ),
    clients=("toril",),
)
async def kill_the_deaf(stage: Stage) -> None:
    """The process is killed, and its place is free again."""
    await _harm(stage)


async def _harm(stage: Stage) -> None:
    stage.no_stalls = True
    stage.may_fail.update(HARMED)
    await stage.pause(max(4.0, 20 * stage.scale))
    # Afterwards the reasons are looked at, when all have ended.
    await stage.drain()
    ended: Counter[str] = Counter()
    async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        failed = await queue.get_jobs("failed")
        for job in failed:
            harm = job.data.get("harm")
            if harm is None:
                # The checker names it.
                continue
            ended[harm] += 1
            if job.failed_reason != REASONS[harm]:
                stage.faults.append(f"job {job.id}, {harm}: its reason is {job.failed_reason!r}")
    starts = [line for line in read(stage.directory) if line["e"] == "start"]
    harmed = {line["id"]: line["pid"] for line in starts if line["id"] in stage.may_fail}
    stage.facts |= {"processes ended": dict(ended)}
    if len(harmed) != sum(ended.values()) or not harmed:
        stage.faults.append(f"{len(harmed)} jobs were to end badly, {sum(ended.values())} have failed")
    if alive := [pid for pid in harmed.values() if _is_alive(pid)]:
        stage.faults.append(f"{len(alive)} processes that were to be gone still run")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
