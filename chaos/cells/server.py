"""Harm to the server: killed, stopped, full, forgetful, busy."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

from chaos.ledger import read
from chaos.stage import Plan, Stage

from ._registry import cell


@cell("3", "server killed, AOF `everysec`", Plan(persistence="aof"))
async def kill_server(stage: Stage) -> None:
    for _ in range(stage.times(5)):
        await stage.pause(1.5, 2.5)
        await stage.restart_server()
    await stage.pause(1.0)


@cell("4a", "server killed, AOF `always`", Plan(persistence="aof", config={"appendfsync": "always"}))
async def kill_server_always(stage: Stage) -> None:
    await kill_server(stage)


@cell("4b", "server killed, RDB saved a second before", Plan(persistence="rdb"))
async def kill_server_rdb(stage: Stage) -> None:
    stage.loses_data = True
    for _ in range(stage.times(3)):
        await stage.pause(1.0, 1.5)
        async with stage.look() as client:
            await client.save()
        await asyncio.sleep(1)
        await stage.restart_server()
    await stage.pause(1.0)


@cell("4c", "server stopped in good order, RDB", Plan(persistence="rdb"))
async def stop_server(stage: Stage) -> None:
    for _ in range(stage.times(3)):
        await stage.pause(1.0, 1.5)
        await stage.restart_server(stop=True)
    await stage.pause(1.0)


@cell("22", "SCRIPT FLUSH every 100 ms", Plan(worker={"lock_duration": 10, "stalled_interval": 2}))
async def forget_scripts(stage: Stage) -> None:
    stage.no_stalls = True
    async with stage.look() as client:
        for _ in range(stage.times(80)):
            await client.script_flush()
            await asyncio.sleep(0.1)
    told = Counter(line["e"] for line in read(stage.directory))
    if told["again"] or told["error"]:
        stage.faults.append(f"{told['again']} adds and {told['error']} calls of workers told an error")


@cell("24", "server out of memory (`maxmemory`, `noeviction`) for 5 s")
async def fill_memory(stage: Stage) -> None:
    async with stage.look() as client:
        before = stage.log_lines()
        used = int((await client.info("memory"))["used_memory"])
        stage.fault("maxmemory")
        await client.config_set("maxmemory", str(used))
        await asyncio.sleep(5)
        await client.config_set("maxmemory", "0")
        stage.healed("maxmemory")
    stage.facts["log_lines"] = stage.log_lines() - before
    # Each worker may tell that it suffers and that it is well again, not each of its tries.
    if stage.client == "toril" and stage.facts["log_lines"] > 2 * 5 * len(stage.workers):
        stage.faults.append(f"{stage.facts['log_lines']} lines were logged in 5 s")
    await stage.pause(2.0)


@cell("10", "server frozen (SIGSTOP) for 5 s")
async def freeze_server(stage: Stage) -> None:
    os.kill(stage.server.pid, signal.SIGSTOP)
    stage.fault("SIGSTOP")
    await asyncio.sleep(5)
    os.kill(stage.server.pid, signal.SIGCONT)
    stage.healed("SIGCONT")
    await stage.pause(2.0)


@cell("23", "server blocked by a command of 3 s")
async def busy_server(stage: Stage) -> None:
    async with stage.look() as client:
        stage.fault("DEBUG SLEEP")
        await client.execute_command("DEBUG", "SLEEP", "3")  # type: ignore[no-untyped-call]
        stage.healed("DEBUG SLEEP")
    await stage.pause(2.0)
