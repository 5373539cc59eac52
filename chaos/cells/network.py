"""Harm to connections: reset, hanging, slow, and answers that are lost, cut or garbage."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from chaos.ledger import read
from chaos.proxy import Rule
from chaos.stage import PREFIX, QUEUE, WORKER, Plan, Stage
from chaos.waits import waits
from toril import Queue

from ._registry import cell


@cell("11", "RST of all connections, again and again")
async def reset_all(stage: Stage) -> None:
    stage.facts["connections_reset"] = 0
    for _ in range(stage.times(10)):
        await stage.pause(0.6, 1.2)
        stage.fault("RST")
        stage.facts["connections_reset"] += stage.proxy.reset()
        stage.healed("RST")
    if stage.facts["connections_reset"] < 3 * stage.times(10):
        stage.faults.append(f"{stage.facts['connections_reset']} connections were reset: nothing is proved")


@cell("12", "one worker's connections hang for ever (half-open)", Plan(workers=2), within=20)
async def half_open(stage: Stage) -> None:
    """New connections are good; it is for the worker to notice that the old ones are dead."""
    proxy = await stage.open_proxy()
    lone = stage.start_worker(url=proxy.url)
    await stage.ready(40)
    await stage.has_run(lone)
    await stage.pause(1.0)
    stage.fault("half-open")
    if not proxy.abandon():
        stage.faults.append("the worker had no connection: nothing is proved")
    stage.healed("half-open")
    await stage.pause(20.0)


# With the jobs of flows and what is tried again, more than the limit lets through.
LIMITED = Plan(rate=40, worker={"limiter": (30, 1)}, settle=60)


@cell("11b", "RST while the queue is paused and resumed, 5 jobs at a time in all, 30 a second", LIMITED)
async def reset_within_limits(stage: Stage) -> None:
    """The driver sets the limits, past the proxy."""
    # Who has the five places gives them to jobs of its own as they end; of three workers one is without for up to 6 s,
    # also where nothing is broken.
    stage.within = 20
    async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        await queue.set_global_concurrency(5)
        # Those that had begun before the limit are no fault of it.
        await asyncio.sleep(1)
        stage.limited_since = time.monotonic()
        stage.at_once = 5
        for _ in range(stage.times(8)):
            await stage.pause(0.5, 0.8)
            await queue.pause()
            stage.fault("RST")
            stage.proxy.reset()
            await stage.pause(0.2, 0.4)
            await queue.resume()
            stage.healed("RST")


@cell("12b", "everything hangs for 6 s, then goes on")
async def black_hole(stage: Stage) -> None:
    stage.fault("black hole")
    stage.proxy.black_hole = True
    await asyncio.sleep(6)
    stage.proxy.black_hole = False
    stage.healed("black hole")
    await stage.pause(2.0)


@cell("16", "one worker is cut off from the server for 3 locks, by the proxy", Plan(workers=2))
async def cut_off(stage: Stage) -> None:
    """What it sends meanwhile arrives afterwards, too late."""
    proxy = await stage.open_proxy()
    lone = stage.start_worker(url=proxy.url)
    await stage.ready(40)
    await stage.has_run(lone)
    await stage.pause(1.0)
    stage.fault("cut off")
    proxy.black_hole = True
    await asyncio.sleep(3 * WORKER["lock_duration"])
    proxy.black_hole = False
    stage.healed("joined again")
    await stage.pause(3.0)


# The default lock: on a slow network nothing may be taken back.
SLOW = Plan(rate=60, worker={"lock_duration": 30, "stalled_interval": 5}, settle=90)


@cell("13a", "each packet 50 ± 20 ms late", SLOW, alone=True)
async def late(stage: Stage) -> None:
    stage.no_stalls = True
    stage.proxy.delay = (0.05, 0.02)
    await stage.pause(8 * stage.scale)
    stage.facts |= waits(read(stage.directory))


@cell("13b", "each packet 500 ± 100 ms late", SLOW, alone=True)
async def very_late(stage: Stage) -> None:
    stage.no_stalls = True
    stage.proxy.delay = (0.5, 0.1)
    await stage.pause(10 * stage.scale)
    stage.facts |= waits(read(stage.directory))


@cell("13c", "1 Mbit/s for each connection", SLOW, alone=True)
async def thin(stage: Stage) -> None:
    stage.no_stalls = True
    stage.proxy.throttle = 125_000.0
    await stage.pause(8 * stage.scale)
    stage.facts |= waits(read(stage.directory))


# BullMQ's default, and toril's: what is taken back twice has failed. A lock that no busy machine lets run out.
ONCE = Plan(worker={"max_stalled_count": 1, "lock_duration": 3, "stalled_interval": 1})


async def strike(stage: Stage, rule: Rule, seconds: float) -> None:
    """Apply a rule for a while, and count what it did."""
    stage.proxy.rule = rule
    await stage.pause(seconds)
    stage.proxy.rule = None
    stage.facts["hits"] = dict(sorted(rule.hits.items())) if stage.client == "toril" else rule.hits.total()
    if not rule.hits:
        stage.faults.append("no answer was hit: nothing is proved")


async def count_taken_back(stage: Stage) -> None:
    """How many jobs were taken back, beside how many calls lost their answer that may have brought some."""
    await stage.drain()
    async with stage.look() as client:
        events: Any = await client.xrange(PREFIX + "events")
    stage.facts["taken_back"] = sum(row.get("event") == "stalled" for _, row in events)
    if stage.client == "toril":
        hits: dict[str, int] = stage.facts["hits"]
        stage.facts["fetches_hit"] = hits.get("move_to_active", 0) + hits.get("move_to_finished", 0)


@cell("14", "the answers of 1 % of all calls of scripts are lost", ONCE)
async def lose_answers(stage: Stage) -> None:
    await strike(stage, Rule("drop", share=0.01), 15 * stage.scale)
    await stage.all_run()
    await count_taken_back(stage)
    # A worker looks for what a lost answer has brought it; what it does not find is taken back, a lock later.
    if stage.facts["taken_back"] > stage.facts.get("fetches_hit", 1e9) / 4:
        stage.faults.append(f"{stage.facts['taken_back']} jobs were taken back, in place of being found")


@cell("14b", "the answers of 20 % of all calls of scripts are lost", ONCE)
async def lose_many_answers(stage: Stage) -> None:
    await strike(stage, Rule("drop", share=0.2), 15 * stage.scale)
    await stage.all_run()
    await count_taken_back(stage)


@cell("15a", "1 % of all answers are cut in the middle", ONCE)
async def cut_answers(stage: Stage) -> None:
    await strike(stage, Rule("cut", share=0.01, most=200), 10 * stage.scale)


@cell("15b", "1 % of all answers are garbage", ONCE)
async def garble_answers(stage: Stage) -> None:
    await strike(stage, Rule("garbage", share=0.01, most=200), 10 * stage.scale)
