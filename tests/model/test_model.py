"""A state machine on a real server, beside a model of it in Python: after each move both hold the same.

Two queues, of two prefixes, with flows from one to the other. `model` and `parts` are the model, to be read beside
`docs/explanation/life-of-a-job.md`; `jobs` and `moves` are the moves, `machine` the frame around them.

What a worker asks the server is asked here, by the same scripts: `move_to_active`, `adopt_jobs` after a lost answer,
`move_to_finished` for one end or for many with a fetch, `plan_next_run`, and after a failed attempt the real
`Running.fail`. What decides *when* to ask is not here: `_loops.fetching` counts free slots, wakes idle lanes and waits
by the machine's clock, in tasks of its own, so what it does next cannot be repeated step by step. It is run by

- `test_worker_faults` `test_no_job_is_lost_or_doubled_by_broken_connections`: adoption, and settling by asking
- `chaos` cells 14 and 14b (lost answers of scripts), 15a and 15b (cut and garbled ones): the same under load; 14 is
  among those that `tests/chaos/test_matrix.py` plays each time
- `differential/test_whole_workers`: a whole worker beside BullMQ's, key by key
- `crash/test_crashes`: workers killed and stopped, the server started anew

The same few examples run each time; `TORIL_EXAMPLES=2000 pytest tests/model` looks further, at others on each run, and
shortens what it finds.

After each move the keys of both queues hold what the model holds (`compare`), and `toril.fsck` finds nothing. That the
model is right is what the following says without it; L is `ledger`, which only knows what was asked and what was
answered. "Model" is the comparison: a job, a place or a count that differs from the model's.

==== ===================================== ========================================================================
I1   no job is lost                        model: each is in the one state that the model has it in, or was removed
I2   one state                             fsck `_states`, and model
I3   no record without state, or reverse   fsck `_states`, `_records`, `_strangers`
I4   finished once                         fsck `_records`, and `histories` over the events
I7   counters                              fsck `_miscounted`; L `judge_metrics`: ends, events and metrics are as many;
                                           model: attempts made, started, stalled; metrics per minute
I8   events match states                   fsck `_histories`: a replay of the whole stream
I9   locks                                 fsck `_locks`, at rest too; model: who holds which, who is suspected
I10  no key is left                        machine `_judge_the_end`; `test_ended_jobs_leave_no_keys`
I11  parents wait for open children        fsck `_parents`; model: which children are open, done, ignored, failed
I12  one pending run of a scheduler        fsck `_schedulers`, `_runs_of_nobody`; L `started`: no time runs twice;
                                           jobs `fetch`: the next is not in the past
I13  rate limit, global concurrency        L `started`: starts in a window, jobs active after a fetch
I14  order                                 L `started`: lower numbers first, then the first added; jobs `_is_next`: what
                                           was added lifo or handed back is at the front; model: the order of starts
I15  never early                           L `started`: delays, backoffs, moved delays, times of schedulers
I18  BullMQ sees the same                  `node_sees_the_same`, before each example's end and after it
I21  one live job of a deduplication id    L `judge_deduplication`; fsck `_deduplication`; machine `_judge_the_end`: no
                                           id is left; model: owner, ttl, kept job
I22  retention by count and age            L `judge_retention`; model: which ended jobs are left
==== ===================================== ========================================================================
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import pytest
import redis.asyncio
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.differential.bench import MOVES
from tests.differential.operations import NodeSide, TorilSide
from tests.interop.node import Node, NodeQueue, why_no_node
from toril import Queue
from toril.options import KeepRule
from toril.scripts import Fetch, FinishedJob
from toril.states import State

from .machine import Bench
from .moves import QueueMachine
from .parts import CRON_MS, EVERY_MS, MODES

EXAMPLES = int(os.environ.get("TORIL_EXAMPLES", "0"))


@pytest.fixture(params=[False, True], ids=["no faults", "faults"])
def bench(request: pytest.FixtureRequest, server_url: str, prefix: str) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        bench = Bench(runner, server_url, prefix, has_faults=request.param)
        node = Node(server_url) if why_no_node() is None else None
        if node is not None:
            bench.look = lambda queue: node_sees_the_same(node, bench, queue)
        yield bench
        if node is not None:
            node.stop()
        bench.close()
    print(
        f"{bench.examples} examples, {bench.steps} steps, {bench.moves} of them changed something, "
        f"{bench.proxy.losses} losses"
    )


_STATES: Final[list[State]] = ["waiting", "prioritized", "delayed", "active", "completed", "failed"]
_WHOLE: Final = {"start": 0, "end": -1, "ascending": True}
_ABOUT_A_QUEUE: Final[list[tuple[str, dict[str, Any]]]] = [
    ("counts", {}),
    ("is_paused", {}),
    ("metrics", {"state": "completed"}),
    ("metrics", {"state": "failed"}),
    ("schedulers", _WHOLE),
    *(("deduplication_owner", {"id": dedup_id}) for dedup_id in ("simple", "throttled", "last")),
    *(
        ("jobs", {"states": [state], **_WHOLE})
        for state in ("waiting", "prioritized", "delayed", "completed")
    ),
]


async def node_sees_the_same(node: Node, bench: Bench, queue: Queue) -> None:
    """BullMQ's getters answer what toril's answer, about the queue and about some jobs of each state."""
    async with NodeQueue(node, queue.name, prefix=queue.keys.prefix, skipMetasUpdate=True) as of_node:
        theirs = NodeSide(queue.keys, bench.client, of_node, {}, cast(Any, None))
        ours = TorilSide(queue.keys, bench.client, bench.clock, queue, cast(Any, None))
        questions = list(_ABOUT_A_QUEUE)
        for job in [job for state in _STATES for job in (await queue.get_jobs([state]))[:2]]:
            questions += [(getter, {"job": job.id}) for getter in ("job", "state", "children")]
            questions.append(("logs", {"job": job.id, **_WHOLE}))
        for getter, about in questions:
            seen = await MOVES[getter].node(theirs, **about), await MOVES[getter].toril(ours, **about)
            assert plain(seen[0]) == plain(seen[1]), f"I18: {getter} of {about}"


def plain(value: Any) -> Any:
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_the_model_and_the_queue_agree(bench: Bench) -> None:
    """Whatever is done to a queue, it holds what the model holds, breaks no invariant, and can be ended and cleared."""
    machine = type("Machine", (QueueMachine,), {"bench": bench})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 45,
            stateful_step_count=60,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        ),
    )


def written(machine: QueueMachine) -> None:
    """What random programs seldom come to."""

    def moves(*steps: Callable[[], None]) -> None:
        for step in steps:
            step()
            machine.nothing_is_wrong()

    machine.begin([""], 0)
    for dedup in MODES:
        moves(
            lambda dedup=dedup: machine.add_two_of_an_id(dedup, 1000, "part", ""),  # type: ignore[misc]
            lambda dedup=dedup: machine.add_two_of_an_id(dedup, 0, "", ""),  # type: ignore[misc]
        )
    # Handed back, it is before another of its priority.
    for _ in range(2):
        moves(lambda: machine.add(0, 1, False, 1, 0, None, None, True, ""))
    moves(lambda: machine.fetch(50, None, ""))
    moves(lambda: machine.add(0, 1, False, 1, 0, None, None, True, ""))
    for index in range(20):
        moves(lambda index=index: machine.give_back(index, ""))  # type: ignore[misc]
    # Kept for a second, and no longer.
    for _ in range(2):
        moves(
            lambda: machine.add(0, 0, True, 1, 0, None, 1, True, ""),
            lambda: machine.run(1, "complete", 0, ""),
            lambda: machine.time_passes(1000),
        )
    # An overdue run is made up for once, in its own phase.
    for scheduler in ("tick", "cron"):
        moves(
            lambda scheduler=scheduler: machine.run_ahead_of_time(scheduler, None, ""),  # type: ignore[misc]
            lambda: machine.time_passes(2 * CRON_MS + 1),
            lambda: machine.fetch(50, None, ""),
            lambda: machine.time_passes(2 * CRON_MS - 1),
            lambda: machine.fetch(50, None, ""),
        )

    # Of runs whose time passed long ago one is made up for, and the next is in the scheduler's own phase: not on the
    # minute, not before now, and neither now where that is a run's time, unless it is the one after the last.
    machine.time_passes(EVERY_MS // 3)
    for scheduler in ("tick", "cron"):
        moves(
            lambda scheduler=scheduler: machine.remove_scheduler(scheduler, ""),  # type: ignore[misc]
            lambda scheduler=scheduler: machine.upsert_scheduler(scheduler, None, True, ""),  # type: ignore[misc]
        )
    moves(lambda: machine.fetch(50, None, ""))
    for late_ms in (10 * EVERY_MS + 1, EVERY_MS - 1, 3 * EVERY_MS, 2 * EVERY_MS, EVERY_MS // 2, 7 * EVERY_MS):
        moves(lambda late_ms=late_ms: machine.time_passes(late_ms), lambda: machine.fetch(50, None, ""))  # type: ignore[misc]


def test_what_random_programs_seldom_do(bench: Bench) -> None:
    """The model and the queue agree there, too."""
    machine: QueueMachine = type("Machine", (QueueMachine,), {"bench": bench})()
    try:
        written(machine)
    finally:
        machine.teardown()


async def test_ended_jobs_leave_no_keys(queue: Queue, client: redis.asyncio.Redis) -> None:
    """Where no ended job is kept, the number of keys is that of a queue, however many have run (I10)."""
    counts: list[int] = []
    for number in (3, 30):
        await queue.add_bulk([("job", {}) for _ in range(number)])
        fetched = await queue.scripts.move_to_active(queue.clock.now_ms(), Fetch(number, "t", 60_000))
        ends = [FinishedJob(job_id, "t", "completed", "1", keep=KeepRule("0")) for job_id, _ in fetched.jobs]
        codes, _ = await queue.scripts.move_to_finished(queue.clock.now_ms(), ends, Fetch(0, "t", 60_000))
        assert codes == [0] * number
        counts.append(len([key async for key in client.scan_iter(f"{queue.keys.base}*", count=1000)]))
    assert counts[0] == counts[1]
