"""What a cell leaves behind, and what its processes hold: I10, I13, I14, I16, I19, I22."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby
from typing import Any, Final

from toril import Connection, Queue

from .stage import PREFIX, QUEUE, WORKER, Stage

__all__ = ["check_leftovers", "check_limits", "check_order", "check_pauses"]

MORE_FILES: Final = 10
"""By which a worker's open files may grow over a cell: connections that it did not need at first."""
MORE_THREADS: Final = 4
RECEIPT: Final = "toril:add:"
"""With which the key of an add's receipt begins; it runs out within five minutes, and outlives its queue until then."""
RECEIPT_S: Final = 300


def check_limits(stage: Stage, lines: list[dict[str, Any]]) -> list[str]:
    """I13: how many jobs ran at a time, in each worker and in all, and how many began in a window.

    Args:
        stage: Of which the settings are.
        lines: Of the ledger, in the order of time.
    """
    settings = {**WORKER, **stage.plan.worker}
    running: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    most: Counter[int] = Counter()
    together = 0
    begun: list[float] = []
    for line in lines:
        event = line["e"]
        if event == "start":
            running[line["pid"]].add((line["id"], line["run"]))
            begun.append(line["t"])
        elif event in ("end", "gone"):
            running[line["pid"]].discard((line["id"], line["run"]))
        elif event == "fault" and line["what"] == "kill":
            running.pop(line["pid"], None)
        if event == "start":
            most[line["pid"]] = max(most[line["pid"]], len(running[line["pid"]]))
        if event == "start" and line["t"] >= stage.limited_since:
            together = max(together, sum(map(len, running.values())))
    found: list[str] = []
    if most and max(most.values()) > settings["concurrency"]:
        found.append(f"I13 {max(most.values())} jobs at once in a worker, not {settings['concurrency']}")
    if stage.at_once is not None:
        stage.facts["most_at_once"] = together
        if together > stage.at_once:
            found.append(f"I13 {together} jobs at once, not {stage.at_once}")
    if limiter := settings.get("limiter"):
        count, seconds = limiter
        stage.facts["most_in_a_window"] = max(
            (_within(begun, at, seconds) for at in range(len(begun))), default=0
        )
        # A window begins with its first job: the end of one and the beginning of the next may lie side by side.
        # Over several windows that is only one too many.
        for windows in (1, 2, 3, 5, 8):
            dense = max((_within(begun, at, windows * seconds) for at in range(len(begun))), default=0)
            if dense > (windows + 1) * count:
                found.append(
                    f"I13 {dense} jobs began within {windows * seconds:g} s, with a limit of {count} in {seconds:g} s"
                )
                break
    return found


def _within(times: list[float], first: int, seconds: float) -> int:
    """How many of the sorted times lie in the window that begins at one of them."""
    at = first
    while at < len(times) and times[at] - times[first] < seconds:
        at += 1
    return at - first


def check_order(stage: Stage, lines: list[dict[str, Any]]) -> list[str]:
    """I14: the jobs have begun in the order that was asked for; one that was handed back is the next again."""
    if stage.order is None:
        return []
    begun = [job_id for job_id, _ in groupby(line["id"] for line in lines if line["e"] == "start")]
    for number, (is_so, wanted) in enumerate(zip(begun, stage.order, strict=False)):
        if is_so != wanted:
            return [f"I14 number {number} to begin was {is_so}, not {wanted}"]
    return [] if len(begun) == len(stage.order) else [f"I14 {len(begun)} jobs began, not {len(stage.order)}"]


def check_pauses(rows: list[tuple[str, dict[str, str]]], is_paused: bool) -> tuple[bool, int]:
    """I16: replay a part of the events; return whether the queue is paused then, and how many jobs began in pauses."""
    broken = 0
    for _, row in rows:
        event = row.get("event")
        if event in ("paused", "resumed"):
            is_paused = event == "paused"
        elif event == "active" and is_paused:
            broken += 1
    return is_paused, broken


async def check_leftovers(stage: Stage, verdict: Any) -> None:
    """I19, I22, I10: what processes hold, how much is kept, and that a queue can be removed without a trace.

    The workers are ended by it.
    """
    found: list[str] = verdict.violations
    for one in stage.workers:
        (files, threads), (files_now, threads_now) = stage.first_held.get(one.pid, (0, 0)), one.held()
        if files and files_now > files + MORE_FILES:
            found.append(f"I19 open files of a worker went from {files} to {files_now}")
        if threads and threads_now > threads + MORE_THREADS:
            found.append(f"I19 threads of a worker went from {threads} to {threads_now}")
    if stage.keeps is not None and verdict.completed > stage.keeps:
        found.append(f"I22 {verdict.completed} completed jobs are kept, not {stage.keeps}")
    for one in stage.workers:
        one.kill()
    async with Connection(stage.direct_url()) as connection:
        await Queue(QUEUE, connection=connection).obliterate(force=True)
    async with stage.look() as client:
        keys = await _keys(client)
    if keys:
        some = ", ".join(key.removeprefix(PREFIX) for key in sorted(keys)[:3])
        found.append(f"I10 {len(keys)} keys are left of an obliterated queue, such as {some}")


async def _keys(client: Any) -> list[str]:
    """Those that stay: a receipt of an add is gone by itself."""
    keys = [key async for key in client.scan_iter(match=f"{PREFIX}*", count=2000)]
    return [
        key
        for key in keys
        if not key.startswith(PREFIX + RECEIPT) or not 0 <= await client.ttl(key) <= RECEIPT_S
    ]
