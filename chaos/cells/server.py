"""Harm to the server: killed, stopped, full, forgetful, busy."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from typing import Final

from chaos.ledger import read
from chaos.stage import Plan, Stage, refusals
from chaos.waits import waits

from ._registry import cell

LATE: Final = 0.5
"""Seconds by which what the ledger says of a run may come before what the server hears of it."""
TORN_S: Final = 3.0
"""In which the load writes more than is torn off."""
ERRORS_A_SECOND: Final = 2
"""That a worker may be refused while a server takes nothing."""


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
    for _ in range(stage.times(3)):
        await stage.pause(1.0, 1.5)
        saved = time.monotonic()
        async with stage.look() as client:
            await client.save()
        await asyncio.sleep(1)
        await stage.restart_server()
        stage.forgets(saved - LATE)
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
        stage.facts["forgotten"] = await refusals(client, "NOSCRIPT")
    stage.facts |= waits(read(stage.directory))
    if not stage.facts["forgotten"]:
        stage.faults.append("no call met a script that was forgotten: nothing is proved")
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
        await asyncio.sleep(2)
        # Without the producer, what is refused are the workers' tries.
        assert stage.producer is not None
        stage.producer.signal(signal.SIGSTOP)
        await asyncio.sleep(0.2)
        refused = await refusals(client, "OOM")
        await asyncio.sleep(3)
        refused = await refusals(client, "OOM") - refused
        await client.config_set("maxmemory", "0")
        stage.healed("maxmemory")
        stage.producer.signal(signal.SIGCONT)
    of_producer = sum(line["e"] == "again" for line in read(stage.directory))
    each = refused / 3 / len(stage.workers)
    stage.facts |= {"refused_adds": of_producer, "errors_a_second_of_a_worker": round(each, 1)}
    if stage.client == "toril" and each > ERRORS_A_SECOND:
        stage.faults.append(f"each worker was refused {each:.1f} times a second, not {ERRORS_A_SECOND}")
    stage.facts["log_lines"] = stage.log_lines() - before
    if not of_producer:
        stage.faults.append("the server took what was added all the same: nothing is proved")
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
    torn: list[int] = []
    for _ in range(stage.times(3)):
        await stage.pause(1.5, 2.5)
        log = max((stage.directory / "data").glob("appendonlydir/*.incr.aof"))
        stage.fault("server ends")
        await asyncio.to_thread(stage.server.kill)
        ended = time.monotonic()
        torn.append(min(log.stat().st_size, stage.chance.randint(1, 50_000)))
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size - torn[-1])
        await asyncio.to_thread(stage.server.start)
        stage.healed("server is back")
        stage.forgets(ended - TORN_S, ended)
    stage.facts["bytes_torn"] = sum(torn)
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
        stage.facts["refused"] = await refusals(client, "MISCONF")
        if info["rdb_last_bgsave_status"] != "err" or not stage.facts["refused"]:
            stage.faults.append("the server has saved, or taken writes, all the same")
        await client.config_set("dbfilename", "dump.rdb")
        await client.bgsave()
        while (await client.info("persistence"))["rdb_last_bgsave_status"] != "ok":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        stage.healed("MISCONF")
    await stage.pause(2.0)


@cell("27", "the server forgets everything (FLUSHALL) while jobs run")
async def forget_all(stage: Stage) -> None:
    began = time.monotonic()
    async with stage.look() as client:
        for _ in range(stage.times(4)):
            await stage.pause(1.0, 1.5)
            stage.fault("FLUSHALL")
            await client.flushall()
            stage.healed("FLUSHALL")
            await stage.keep_events()
    # Whatever was added before the last of them; nothing after it.
    stage.forgets(began - 60, stage.healed_at + LATE)
    await stage.pause(2.0)
