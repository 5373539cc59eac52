"""The checker is checked: a calm run is told without a fault, and each lie about it is seen.

The run is real: a worker has done a small load, the ledger has noted it. Each test then spoils one thing, in the ledger
or in the server, as a fault of toril's would, and the checker must name the invariant.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from chaos.checker import Verdict, judge
from chaos.endings import check_leftovers
from chaos.ledger import Ledger, read
from chaos.stage import PREFIX, QUEUE, Plan, Stage
from toril import Deduplication, FlowJob, FlowProducer, Job, Queue, Worker
from toril.embedded import EmbeddedServer
from toril.errors import ConfigurationError

FLOW = ("parent", "child-a", "child-b")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "other": {},
    "late": {"delay": 0.1},
    "important": {"priority": 3},
    "again": {"attempts": 3, "backoff": 0.01},
    "shared": {"deduplication": Deduplication("one")},
    "brief": {"remove_on_complete": True},
}
COUNT = len(OPTIONS) + len(FLOW) + 1


@dataclass
class Run:
    """What a calm run has left: the keys of the server, and the ledger's directory."""

    server: EmbeddedServer
    ledger: Path
    keys: dict[bytes, bytes]


@dataclass
class Scene:
    """That run, to be spoilt: its server, and the lines of its ledger."""

    redis: redis.Redis
    lines: list[dict[str, Any]]
    stage: Stage

    def about(self, job_id: str, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("id") == job_id and line["e"] == event]

    def forget(self, job_id: str, event: str) -> None:
        self.lines = [line for line in self.lines if (line.get("id"), line["e"]) != (job_id, event)]

    def say(self, event: str, job_id: str, **facts: Any) -> None:
        facts = {"run": 1, "pid": 1, "t": time.monotonic(), **facts}
        self.lines.append({"e": event, "id": job_id, **facts})

    def move(self, job_id: str, to: str) -> None:
        """From the completed jobs elsewhere, without a word."""
        self.redis.zrem(PREFIX + "completed", job_id)
        if to in ("wait", "active"):
            self.redis.lpush(PREFIX + to, job_id)
        else:
            self.redis.zadd(PREFIX + to, {job_id: 1})

    def retell(self, keep: Callable[[dict[str, str]], bool], *more: dict[str, str]) -> None:
        """Write the events anew: some in front, and of the others those that are to be kept."""
        told: Any = self.redis.xrange(PREFIX + "events")
        self.redis.delete(PREFIX + "events")
        rows: list[Any] = [*more, *(row for _, row in told if keep(row))]
        for row in rows:
            self.redis.xadd(PREFIX + "events", row)

    async def verdict(self) -> Verdict:
        path = self.stage.directory / "all.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return await judge(self.stage)


async def _calm(url: str, directory: Path) -> None:
    book = Ledger(directory, "all")
    ended = asyncio.Event()
    done: set[str] = set()

    async def process(job: Job) -> str:
        run = job.attempts_started
        book.write("start", id=job.id, run=run, pid=1)
        await asyncio.sleep(0.005)
        if job.id == "again" and not job.attempts_made:
            book.write("end", id=job.id, run=run, pid=1, failed=True)
            raise ValueError("this attempt is to fail")
        book.write("end", id=job.id, run=run, pid=1)
        return f"1:{run}"

    async with Queue(QUEUE, connection=url) as queue, FlowProducer(connection=url) as flows:
        await queue.pause()
        for job_id, options in OPTIONS.items():
            facts = {"delay": options.get("delay", 0), "fails": int(job_id == "again")}
            book.write("sent", id=job_id, keep=int(job_id == "brief"), **facts)
            await queue.add("work", {}, job_id=job_id, **options)
            book.write("acked", id=job_id)
        book.write("sent", id="unnamed", delay=0, fails=0)
        book.write("acked", id="unnamed", given=(await queue.add("work", {"unnamed": "unnamed"})).id)
        for member in FLOW:
            book.write("sent", id=member, delay=0, fails=0)
        await flows.add(
            FlowJob("work", QUEUE, {}, {"job_id": "parent"},
                    [FlowJob("work", QUEUE, {}, {"job_id": child}) for child in FLOW[1:]])
        )  # fmt: skip
        for member in FLOW:
            book.write("acked", id=member)
        await queue.resume()
        worker = Worker(queue, process, concurrency=2)

        @worker.on("completed")
        def note(job: Job, *_: Any) -> None:  # pyright: ignore[reportUnusedFunction]
            done.add(job.id)
            if len(done) == COUNT:
                ended.set()

        async with worker, asyncio.timeout(30):
            await ended.wait()
    book.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    ledger = tmp_path_factory.mktemp("ledger")
    try:
        server = EmbeddedServer()
        server.start()
    except ConfigurationError as error:
        pytest.skip(str(error))
    try:
        asyncio.run(_calm(server.url, ledger))
        with redis.Redis.from_url(server.url) as client:
            keys = {key: client.dump(key) or b"" for key in client.scan_iter() if b"toril:add:" not in key}
        yield Run(server, ledger, keys)
    finally:
        server.stop()


@pytest.fixture
async def scene(run: Run, tmp_path: Path) -> AsyncIterator[Scene]:
    with redis.Redis.from_url(run.server.url) as raw:
        raw.flushall()
        for key, value in run.keys.items():
            raw.restore(key, 0, value)
    directory = tmp_path / "ledger"
    shutil.copytree(run.ledger, directory)
    lines = sorted(read(directory), key=lambda line: line["t"])
    for path in directory.glob("*.jsonl"):
        path.unlink()
    stage = Stage("toril", Plan(proxied=False), directory, run.server, random.Random(1), 1.0)
    with redis.Redis.from_url(run.server.url, decode_responses=True) as client:
        yield Scene(client, lines, stage)
    stage.book.close()


async def test_a_calm_run_is_told_without_a_fault(scene: Scene) -> None:
    """Nothing is wrong with it, and each job is counted."""
    verdict = await scene.verdict()

    assert verdict.violations == []
    assert (verdict.jobs, verdict.acked, verdict.lost, verdict.stuck) == (COUNT, COUNT, 0, 0)
    assert (verdict.executed, verdict.duplicates, verdict.false_failed) == (COUNT + 1, 0, 0)


def lose(scene: Scene) -> None:
    scene.redis.zrem(PREFIX + "completed", "plain")
    scene.redis.delete(PREFIX + "plain")


def lose_before_its_end(scene: Scene) -> None:
    """A job that may be removed, and of whose end nobody has heard."""
    scene.retell(lambda row: (row.get("jobId"), row["event"]) != ("brief", "completed"))


def fail_a_good_job(scene: Scene) -> None:
    scene.move("plain", "failed")
    scene.redis.hset(PREFIX + "plain", "failedReason", "job stalled more than allowable limit")


def run_once_more(scene: Scene) -> None:
    scene.say("start", "plain", run=2)
    scene.say("end", "plain", run=2)


def overlap(scene: Scene) -> None:
    """Somebody else has begun it before its first run has ended."""
    (first,), (end,) = scene.about("plain", "start"), scene.about("plain", "end")
    between = (first["t"] + end["t"]) / 2
    end["t"] += 0.5
    scene.say("start", "plain", run=2, pid=2, t=between)


def let_the_loser_win(scene: Scene) -> None:
    run_once_more(scene)
    scene.redis.hset(PREFIX + "plain", "ats", 2)


def wait_twice(scene: Scene) -> None:
    scene.move("plain", "wait")
    scene.move("plain", "wait")


def forget_the_retry(scene: Scene) -> None:
    scene.lines = [line for line in scene.lines if line.get("id") != "again" or not line.get("failed")]


def add_twice(scene: Scene) -> None:
    (acked,) = scene.about("unnamed", "acked")
    scene.redis.copy(PREFIX + acked["given"], PREFIX + "twin")
    scene.redis.zadd(PREFIX + "completed", {"twin": 1})


def share_at_once(scene: Scene) -> None:
    for job_id in ("plain", "other"):
        scene.redis.hset(PREFIX + job_id, "deid", "two")


def begin_in_a_pause(scene: Scene) -> None:
    scene.retell(lambda row: row["event"] != "resumed")


def plan_nothing(scene: Scene) -> None:
    scene.redis.hset(PREFIX + "repeat:hourly", mapping={"name": "work", "every": "3600000", "ic": "1"})
    scene.redis.zadd(PREFIX + "repeat", {"hourly": 4e12})


def fall_ill(scene: Scene) -> None:
    scene.lines.append({"e": "health", "t": 0.0, "pid": 1, "state": "unreachable"})
    scene.stage.workers.append(SimpleNamespace(pid=1, rss_mb=lambda: 1.0))  # type: ignore[arg-type]


def log_a_forgotten_task(scene: Scene) -> None:
    output = scene.stage.directory / "worker-0.out"
    output.write_text("Task was destroyed but it is pending!\n")
    scene.stage.everyone.append(SimpleNamespace(output=output))  # type: ignore[arg-type]


LIES: dict[str, tuple[str, Callable[[Scene], Any]]] = {
    "a job is gone": ("I1", lose),
    "a job is gone that was removed too early": ("I1", lose_before_its_end),
    "in two states": ("I2", lambda scene: scene.redis.zadd(PREFIX + "failed", {"plain": 1})),
    "twice in one state": ("I2", wait_twice),
    "a record in no state": ("I3", lambda scene: scene.redis.hset(PREFIX + "stray", "name", "work")),
    "a state without a record": ("I3", lambda scene: scene.redis.delete(PREFIX + "plain")),
    "a part of a job that is gone": ("fsck I3", lambda scene: scene.redis.rpush(PREFIX + "x:logs", "row")),
    "ended, and no time says when": ("I4", lambda scene: scene.redis.hdel(PREFIX + "plain", "finishedOn")),
    "ended twice": (
        "I4 ended",
        lambda scene: scene.redis.xadd(PREFIX + "events", {"event": "completed", "jobId": "plain"}),
    ),
    "completed without a run": ("I4 completed", lambda scene: scene.forget("plain", "end")),
    "a good job has failed": ("I4 good", fail_a_good_job),
    "one run too many": ("I5 1 runs", run_once_more),
    "a retry that never was": ("I5 completed", forget_the_retry),
    "added twice": ("I5 added", add_twice),
    "two runs at once": ("I6 two", overlap),
    "a result that no run gave": (
        "I6 a result",
        lambda scene: scene.redis.hset(PREFIX + "plain", "returnvalue", '"2:1"'),
    ),
    "a result of who had lost the job": (
        "I6 a result",
        let_the_loser_win,
    ),
    "a start that nobody counted": (
        "I7 more",
        lambda scene: scene.redis.hset(PREFIX + "again", mapping={"ats": 1, "returnvalue": '"1:1"'}),
    ),
    "an attempt that was none": (
        "I7 attempts",
        lambda scene: scene.redis.hset(PREFIX + "plain", mapping={"atm": 2}),
    ),
    "a retry that was not counted": (
        "I7 attempts",
        lambda scene: scene.redis.hset(PREFIX + "again", "atm", 1),
    ),
    "taken back, and no event says so": (
        "fsck I7",
        lambda scene: scene.redis.hset(PREFIX + "plain", "stc", 1),
    ),
    "the last event is lost": (
        "I8",
        lambda scene: scene.retell(lambda row: (row.get("jobId"), row["event"]) != ("plain", "completed")),
    ),
    "an event in the middle is lost": (
        "fsck I8",
        lambda scene: scene.retell(lambda row: (row.get("jobId"), row["event"]) != ("plain", "active")),
    ),
    "all events of a job are lost": (
        "I8",
        lambda scene: scene.retell(lambda row: row.get("jobId") != "plain"),
    ),
    "a lock that was left": ("I9", lambda scene: scene.redis.set(PREFIX + "plain:lock", "token", px=2000)),
    "taken for stalled": ("fsck I9", lambda scene: scene.redis.sadd(PREFIX + "stalled", "plain")),
    "a marker that wakes nobody": (
        "fsck I9",
        lambda scene: scene.redis.zadd(PREFIX + "marker", {"plain": 0}),
    ),
    "a parent that waits for nothing": ("fsck I11", lambda scene: scene.move("parent", "waiting-children")),
    "a job scheduler without a job": ("fsck I12", plan_nothing),
    "begun too early": ("I15", lambda scene: scene.about("late", "sent")[0].update(delay=60)),
    "begun in a pause": ("I16", begin_in_a_pause),
    "never run": ("I17", lambda scene: scene.move("plain", "wait")),
    "still active": ("I17", lambda scene: scene.move("plain", "active")),
    "a worker that took itself for stuck": (
        "I17 workers that took",
        lambda scene: scene.lines.append({"e": "health", "t": 0.0, "pid": 1, "state": "stuck"}),
    ),
    "a worker that is not well in the end": ("I17 a worker that is done", fall_ill),
    "a forgotten task": ("I20", log_a_forgotten_task),
    "two jobs of one deduplication id": ("I21", share_at_once),
    "a deduplication id that is never free": (
        "fsck I21",
        lambda scene: scene.redis.set(PREFIX + "de:one", "shared"),
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_seen(scene: Scene, lie: str) -> None:
    """What is spoilt breaks the invariant that is about it."""
    invariant, spoil = LIES[lie]
    spoil(scene)

    violations = (await scene.verdict()).violations

    assert any(one.startswith(invariant) for one in violations), violations


async def test_what_a_server_forgot_is_not_lost_by_toril(scene: Scene) -> None:
    """A job that was added while the server's memory is gone is counted and no fault; one that was added later is."""
    lose(scene)
    (acked,) = scene.about("plain", "acked")
    scene.stage.losses = [(acked["t"] - 60, acked["t"] + 0.0001)]

    verdict = await scene.verdict()
    assert (verdict.lost, [one for one in verdict.violations if one.startswith("I1 ")]) == (1, [])

    scene.stage.losses = [(acked["t"] - 60, acked["t"] - 30)]
    verdict = await scene.verdict()
    assert [one for one in verdict.violations if one.startswith("I1 ")]


async def test_keys_that_are_left_are_seen(scene: Scene) -> None:
    """One that runs out some time is left all the same, unless it is the receipt of an add."""
    scene.redis.set(PREFIX + "toril:add:1", "[]", px=60_000)
    scene.redis.set(PREFIX + "some:other:key", "1", px=60_000)
    verdict = Verdict()

    await check_leftovers(scene.stage, verdict)

    assert verdict.violations == ["I10 1 keys are left of an obliterated queue, such as some:other:key"]


async def test_more_than_is_kept_is_seen(scene: Scene) -> None:
    """Of the completed jobs no more are there than was asked for."""
    scene.stage.keeps = 3
    verdict = await scene.verdict()

    await check_leftovers(scene.stage, verdict)

    assert verdict.violations == [f"I22 {COUNT - 1} completed jobs are kept, not 3"]


@pytest.mark.parametrize(
    ("pid", "is_alive", "told"),
    [
        (1, True, []),
        (2, True, ["I17 1 workers took nothing any more, 0 ended by themselves"]),
        (1, False, ["I17 0 workers took nothing any more, 1 ended by themselves"]),
    ],
)
async def test_a_worker_that_takes_nothing_any_more_is_seen(
    scene: Scene, pid: int, is_alive: bool, told: list[str]
) -> None:
    """Others may do its work, so nothing else would tell."""
    await scene.verdict()
    scene.stage.within = -2
    scene.stage.producer = SimpleNamespace(is_alive=True)  # type: ignore[assignment]
    scene.stage.workers = [SimpleNamespace(pid=pid, is_alive=is_alive)]  # type: ignore[list-item]

    await scene.stage.all_run()

    assert scene.stage.faults == told
