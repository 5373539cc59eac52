"""Harm to the server: killed, stopped, full, forgetful, busy."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
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


@cell("5", "server killed, and the end of its AOF torn off", Plan(persistence="aof"), clients=("toril",))
async def tear_log(stage: Stage) -> None:
    """What was torn off is lost, and finished jobs may run again; what is left is whole."""
    stage.loses_data = True
    for _ in range(stage.times(3)):
        await stage.pause(1.5, 2.5)
        log = max((stage.directory / "data").glob("appendonlydir/*.incr.aof"))
        stage.fault("server ends")
        await asyncio.to_thread(stage.server.kill)
        with log.open("r+b") as file:
            file.truncate(max(0, log.stat().st_size - stage.chance.randint(1, 50_000)))
        await asyncio.to_thread(stage.server.start)
        stage.healed("server is back")
    await stage.pause(1.0)


@cell(
    "25",
    "a server that evicts keys (`allkeys-lru`)",
    Plan(config={"maxmemory-policy": "allkeys-lru"}),
    clients=("toril",),
)
async def evict(stage: Stage) -> None:
    """Nothing is harmed yet: what counts is that a worker warns, and that the doctor finds it."""
    if "maxmemory-policy" not in stage.words() and "evict" not in stage.words():
        stage.faults.append("no worker has warned")
    doctor = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "toril.cli", "doctor",
        env={**os.environ, "TORIL_URL": f"redis://127.0.0.1:{stage.port}"},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await doctor.communicate()
    if doctor.returncode != 1 or b"evict" not in said:
        stage.faults.append(f"toril doctor: exit code {doctor.returncode}")


@cell(
    "26",
    "disk full: the server cannot save, and refuses writes (`MISCONF`) for 5 s",
    Plan(persistence="rdb", config={"enable-protected-configs": "yes"}),
)
async def fill_disk(stage: Stage) -> None:
    """A file of a name that is a directory's cannot be written, as on a full disk."""
    (stage.directory / "data" / "full").mkdir()
    async with stage.look() as client:
        await client.config_set("save", "3600 1")
        await client.config_set("dbfilename", "full")
        stage.fault("MISCONF")
        await client.bgsave()
        await asyncio.sleep(5)
        info = await client.info("persistence")
        if info["rdb_last_bgsave_status"] != "err":
            stage.faults.append("the server has saved all the same")
        await client.config_set("dbfilename", "dump.rdb")
        await client.bgsave()
        while (await client.info("persistence"))["rdb_last_bgsave_status"] != "ok":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        stage.healed("MISCONF")
    await stage.pause(2.0)


@cell("27", "the server forgets everything (FLUSHALL) while jobs run")
async def forget_all(stage: Stage) -> None:
    stage.loses_data = True
    async with stage.look() as client:
        for _ in range(stage.times(4)):
            await stage.pause(1.0, 1.5)
            stage.fault("FLUSHALL")
            await client.flushall()
            stage.healed("FLUSHALL")
    await stage.pause(2.0)
