"""Versions side by side: a fleet that is replaced worker by worker, while producers of all of them add."""

from __future__ import annotations

import signal

from chaos.stage import PREFIX, Plan, Stage, need_node

from ._registry import cell


@cell(
    "44",
    "a rolling upgrade on one queue: BullMQ 5, then 6.7, then toril, each adding meanwhile, and back to 5",
    Plan(workers=0, worker={"lock_duration": 5, "stalled_interval": 1}),
    clients=("toril",),
    begins=False,
)
async def upgrade(stage: Stage) -> None:
    """Each job runs once, whoever has added it; the checker counts. What stands in `meta` is Node's."""
    need_node("bullmq", "bullmq5")
    stage.no_stalls = True
    seen: list[str] = []
    added = [stage.start_producer(client="bullmq5", tag="five", rate=60)]
    for _ in range(3):
        stage.start_worker(client="bullmq5")
    await stage.ready(20)
    async with stage.look() as client:
        seen.append(str(await client.hget(PREFIX + "meta", "version")))
        for kind, tag in (("bullmq", "six"), ("toril", "j"), ("bullmq5", "back")):
            added.append(stage.start_producer(client=kind, tag=tag, rate=60))
            for old in [*stage.workers]:
                new = stage.start_worker(client=kind)
                await stage.has_run(new)
                await stage.pause(2.5 * stage.scale)
                stage.workers.remove(old)
                old.signal(signal.SIGTERM)
                if await old.ended(15) != 0:
                    stage.faults.append("a worker did not end in good order")
                    old.kill()
            seen.append(str(await client.hget(PREFIX + "meta", "version")))
    for one in added[:-1]:
        one.signal(signal.SIGTERM)
        if await one.ended(30) is None:
            stage.faults.append("a producer did not end")
    stage.facts["meta_version"] = ", ".join(seen)
    five, six, ours, _ = seen
    if not five.startswith("bullmq:5.") or not six.startswith("bullmq:6.") or ours != six:
        stage.faults.append(f"meta.version became {', '.join(seen)}")
