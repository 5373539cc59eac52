"""Runs one program on both clients and compares what it leaves, after each step.

A program is a list of steps, each the name of a move and its arguments. Both clients begin with no keys at all and are
told the same time. A step is about the queue `q` unless it has an argument `queue`. For random programs, which do not
know what the clients will hold, an argument may be a `Pick`, and a step with `unless` is left out where one of these
quirks of the reference would show that toril does not share.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import redis

from tests.interop.node import Node, NodeError, NodeFlows, NodeQueue, NodeWorker
from toril import Connection, FlowProducer, Job, KeepJobs, Queue, TorilError, Worker
from toril._loops.claims import Settings
from toril.clock import ServerClock
from toril.keys import QueueKeys

from . import keyspace
from .keyspace import Keyspace
from .operations import LOCK_MS, OPERATIONS, WORKERS, NodeSide, TorilSide, TorilWorker, refusal_of
from .scheduling import SCHEDULING

__all__ = ["ITS", "MOVES", "QUIRKS", "START_MS", "Bench", "Pick", "PickEnds", "Step", "open_bench"]

Json = Any
Step = tuple[str, dict[str, Json]]
QUEUES: Final = ("q", "r")
START_MS: Final = 1_800_000_000_000
UNORDERED: Final = ("remove", "remove_unprocessed_children")
"""Moves that walk over a set of children's keys, whose order some servers make up from the keys' text."""
MOVES: Final = {**OPERATIONS, **SCHEDULING}
ITS: Final = "its own token"
"""As the token of a step: the one that holds the job's lock."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The job at `index`, modulo how many there are, of the first of these lists and sorted sets that has any.

    `nobody`, a job that does not exist, where none of them has.
    """

    keys: tuple[str, ...]
    index: int = 0

    def of(self, space: Keyspace, queue: str) -> str:
        for key in self.keys:
            content: list[Json] = space.get(f"{queue}:{key}", {}).get("content", [])
            if content:
                found = content[self.index % len(content)]
                return found if isinstance(found, str) else found[0]
        return "nobody"


@dataclass(frozen=True, slots=True)
class PickEnds:
    """The ends of the first active jobs, as `finish_many` takes them: one for each of `hows` that has a job.

    Attributes:
        hows: Per job how it ends, `done` or `failed`.
        begins_refused: Whether the first of them is tried with a foreign token before.
    """

    hows: tuple[str, ...]
    begins_refused: bool = False

    def of(self, space: Keyspace, queue: str) -> list[dict[str, Json]]:
        ends: list[dict[str, Json]] = []
        active: list[str] = space.get(f"{queue}:active", {}).get("content", [])
        held = [job for job in active if f"{queue}:{job}:lock" in space]
        for number, (job, how) in enumerate(zip(held, self.hows, strict=False)):
            if self.begins_refused and number == 0:
                ends.append({"job": job, "token": "foreign", "value": None})
            outcome = {"value": number} if how == "done" else {"error": f"error {number}"}
            ends.append({"job": job, "token": space[f"{queue}:{job}:lock"]["content"], **outcome})
        return ends


def _holds(space: Keyspace, queue: str, *keys: str) -> list[str]:
    """Return the ids under these keys of the queue."""
    found = [item for key in keys for item in space.get(f"{queue}:{key}", {}).get("content", [])]
    return [item if isinstance(item, str) else item[0] for item in found]


def _has_run(space: Keyspace, queue: str, *keys: str) -> bool:
    return any(job_id.startswith("repeat:") for job_id in _holds(space, queue, *keys))


def _is_ahead(space: Keyspace, queue: str) -> bool:
    """Whether a run was begun before its time."""
    for key, entry in space.items():
        beginning, _, due = key.rpartition(":")
        content: Any = entry.get("content")
        if beginning.startswith(f"{queue}:repeat:") and isinstance(content, dict) and due.isdecimal():
            begun = cast("dict[str, str]", content).get("processedOn", "")
            if begun.isdecimal() and int(begun) < int(due):
                return True
    return False


QUIRKS: Final[dict[str, Callable[[Keyspace, str], bool]]] = {
    # Node looks for a scheduler's pending job where 6.x no longer puts it, and makes a second one.
    "paused": lambda space, queue: "paused" in space.get(f"{queue}:meta", {}).get("content", {}),
    # Node adds a pattern's run again that was promoted, and has begun before its time.
    "a run is ahead": lambda space, queue: _is_ahead(space, queue),
    # Node trims lists by as many ids as it has drained, from the wrong end where a scheduler's job was spared.
    "a run waits": lambda space, queue: _has_run(space, queue, "wait", "paused"),
    # Node's worker plans the next run between one fetch and the next; toril plans after fetching several.
    "runs to come": lambda space, queue: _has_run(space, queue, "wait", "paused", "prioritized", "delayed"),
    # Node's obliterate leaves jobs that wait for children behind.
    "children awaited": lambda space, queue: bool(_holds(space, queue, "waiting-children")),
    # Node takes metrics of failures for a lost job and deletes them.
    "failures measured": lambda space, queue: f"{queue}:metrics:failed" in space,
}
"""What may make a step of a random program show a known difference; `docs/decisions` says why toril differs."""


@dataclass(slots=True)
class Bench:
    """Both clients, on keys of their own.

    Attributes:
        steps: How many steps were compared so far, in all programs.
        left_out: How many were not, for their quirks.
    """

    node: dict[str, NodeSide]
    toril: dict[str, TorilSide]
    prefixes: tuple[str, str]
    clock: BenchClock
    client: redis.Redis
    steps: int = 0
    left_out: int = 0

    async def run(self, program: Sequence[Step]) -> Keyspace:
        """Run a program; return what both sides hold at its end.

        Raises:
            AssertionError: The two differ, in an answer or in a key; with the program so far.
        """
        for prefix in self.prefixes:
            keyspace.forget(self.client, f"{prefix}:")
        await self._turn_clock(START_MS)
        space: Keyspace = {}
        for at, (name, raw) in enumerate(program):
            if name == "time_passes":
                await self._turn_clock(self.clock.now_ms() + raw["ms"])
                continue
            queue = raw.get("queue", "q")
            if any(QUIRKS[quirk](space, queue) for quirk in raw.get("unless", ())):
                self.left_out += 1
                continue
            given = {key: value for key, value in raw.items() if key not in ("queue", "unless")}
            args = _resolve(given, space, queue)
            if args.get("ends") == []:
                continue
            answers = (
                await _answer(MOVES[name].node, self.node[queue], args),
                await _answer(MOVES[name].toril, self.toril[queue], args),
            )
            before, (space, other) = (
                space,
                [keyspace.read(self.client, f"{prefix}:") for prefix in self.prefixes],
            )
            differences = keyspace.difference(
                *(
                    keyspace.new_events(each, before, is_ordered=name not in UNORDERED)
                    for each in (space, other)
                )
            )
            if answers[0] != answers[1]:
                differences.insert(0, f"answer: node {answers[0]!r}, toril {answers[1]!r}")
            if differences:
                told = "\n".join(f"    {step!r}," for step in program[: at + 1])
                raise AssertionError(
                    f"after step {at} {name} {args}\n  "
                    + "\n  ".join(differences)
                    + f"\nprogram = [\n{told}\n]"
                )
            self.steps += 1
        return space

    async def _turn_clock(self, now_ms: int) -> None:
        self.clock.at_ms = now_ms
        await self.node["q"].queue.node.ask("clock", now=now_ms)


class BenchClock(ServerClock):
    """The clock of a connection, which stands at `at_ms` whatever the server says."""

    at_ms = START_MS

    def now_ms(self) -> int:
        return self.at_ms

    def learn(self, asked: float, answered: float, seconds: int, microseconds: int) -> None:
        pass


@asynccontextmanager
async def open_bench(url: str, node: Node, prefix: str) -> AsyncGenerator[Bench]:
    """Open both clients under a prefix; `node` is a process that nobody else uses, since its clock is turned."""
    prefixes = f"{prefix}:node", f"{prefix}:toril"
    async with AsyncExitStack() as stack:
        client = stack.enter_context(
            redis.Redis.from_url(url, decode_responses=True, encoding_errors="backslashreplace")
        )
        connection = await stack.enter_async_context(Connection(url))
        connection.clock = clock = BenchClock()
        node_flows = await stack.enter_async_context(NodeFlows(node, prefix=prefixes[0]))
        flows = FlowProducer(connection=connection, prefix=prefixes[1])
        bench = Bench({}, {}, prefixes, clock, client)
        for name in QUEUES:
            # The queue's settings are then written by the scripts, on both sides.
            node_queue = NodeQueue(node, name, prefix=prefixes[0], skipMetasUpdate=True)
            await stack.enter_async_context(node_queue)
            workers: dict[str, NodeWorker] = {}
            for kind, options in WORKERS.items():
                worker = NodeWorker(node, name, prefix=prefixes[0], lockDuration=LOCK_MS, **options)
                workers[kind] = await stack.enter_async_context(worker)
            bench.node[name] = NodeSide(QueueKeys(prefixes[0], name), client, node_queue, workers, node_flows)
            queue = Queue(name, connection=connection, prefix=prefixes[1])
            toril = TorilSide(queue.keys, client, clock, queue, flows)
            for kind, options in WORKERS.items():
                toril.workers[kind] = TorilWorker(queue, _settings(queue, options))
                stack.callback(toril.workers[kind].running.close)
            bench.toril[name] = toril
        yield bench


def _settings(queue: Queue, options: dict[str, Json]) -> Settings:
    """Return a toril worker's settings for options in Node's words."""

    def keep(name: str) -> KeepJobs | None:
        return KeepJobs(**options[name]) if name in options else None

    async def nothing(job: Job) -> None: ...

    limiter = options.get("limiter")

    return Worker(
        queue,
        nothing,
        name=options.get("name"),
        lock_duration=LOCK_MS / 1000,
        max_stalled_count=options.get("maxStalledCount", 1),
        max_started_attempts=options.get("maxStartedAttempts"),
        limiter=(limiter["max"], limiter["duration"] / 1000) if limiter else None,
        metrics_points=options.get("metrics", {}).get("maxDataPoints", 0),
        remove_on_complete=keep("removeOnComplete"),
        remove_on_fail=keep("removeOnFail"),
    )._settings


async def _answer(move: Any, side: NodeSide | TorilSide, args: Mapping[str, Json]) -> Json:
    try:
        return _plain(await move(side, **args))
    except (NodeError, TorilError, redis.ResponseError) as error:
        return f"refused: {refusal_of(error)}"


def _plain(value: Json) -> Json:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _resolve(value: Json, space: Keyspace, queue: str) -> Json:
    """Replace picks by the jobs that they stand for, and then `ITS` by the token that holds the job's lock."""
    if isinstance(value, (Pick, PickEnds)):
        return value.of(space, queue)
    if isinstance(value, list):
        return [_resolve(item, space, queue) for item in value]
    if isinstance(value, dict):
        found = {key: _resolve(item, space, queue) for key, item in value.items()}
        if found.get("token") == ITS:
            found["token"] = space.get(f"{queue}:{found['job']}:lock", {}).get("content", "no token")
        return found
    return value
