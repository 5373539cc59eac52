"""The bare loop: what a client without asyncio, jobs, errors or options would do with toril's own scripts.

It sends `add_job` with lists of 50, and `move_to_finished` that ends 50 jobs and fetches 50, over plain sockets with
hiredis, without receipts, two calls in flight on a connection each: what a worker with concurrency 100 sends. The
arguments are taken from `toril.scripts`, once, and only the ids are put in; so they follow the scripts when these
change. What it reaches is the bound: a drain gets nearer to it by costing less Python, and passes it only by sending
other scripts.
"""

from __future__ import annotations

import copy
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, ClassVar, Final, cast
from urllib.parse import urlsplit

import hiredis

from benchmarks.contestants.harness import QUEUE, Adapter, main
from benchmarks.tally import Tally
from toril.keys import QueueKeys
from toril.options import PreparedOptions
from toril.scripts import Fetch, FinishedJob, NewRecord, Scripts, load

BATCH: Final = 50
SCRIPTS: Final = ("add_job", "move_to_active", "move_to_finished")


# Its stub leaves the argument without a type.
pack: Final[Callable[[tuple[Any, ...]], bytes]] = cast(Any, hiredis).pack_command


class Wire:
    """A socket that sends commands and waits for their answers."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(encoding="utf-8")

    def send(self, *words: Any) -> None:
        self.write(pack(words))

    def write(self, packed: bytes) -> None:
        """Send commands that are packed already."""
        self._socket.sendall(packed)

    def receive(self) -> Any:
        while (answer := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(1 << 18))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, *words: Any) -> Any:
        self.send(*words)
        return self.receive()


class _Recorder:
    """In the place of a connection: keeps the command, and answers so that `Scripts` is content."""

    def __init__(self, answer: Any) -> None:
        self.command: tuple[Any, ...] = ()
        self._answer = answer

    async def execute(self, *words: Any) -> Any:
        self.command = words
        return self._answer


class Template:
    """A call of a script that carries a list: its head, and the words of one member."""

    def __init__(self, one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
        stride = len(two) - len(one)
        self.head: tuple[Any, ...] = one[: len(one) - stride]
        self.member: tuple[Any, ...] = one[len(one) - stride :]

    def calling(self, sha: str) -> Template:
        """Return the same for another script that takes the same."""
        other = copy.copy(self)
        other.head = (self.head[0], sha, *self.head[2:])
        return other

    def of(self, words: list[str]) -> Iterator[Any]:
        """The command for members that begin with these words: the id of one that ends, the name of a new one."""
        yield from self.head
        rest = self.member[1:]
        for word in words:
            yield word
            yield from rest


def _recorded(answer: Any, call: Callable[[Scripts], Coroutine[Any, Any, Any]]) -> tuple[Any, ...]:
    recorder = _Recorder(answer)
    # Nothing in it waits, so one step carries it to its end, inside whatever loop this is.
    with suppress(StopIteration):
        call(Scripts(QueueKeys("bull", QUEUE), recorder)).send(None)
    return recorder.command


def add_template() -> Template:
    """What `Queue.add("noop", {"t": 0})` sends."""
    job = NewRecord("", "noop", '{"t":0}', PreparedOptions().stored, str(int(time.time() * 1000)))

    def adding(count: int) -> tuple[Any, ...]:
        return _recorded(["1"], lambda scripts: scripts.add_job([job] * count))

    return Template(adding(1), adding(2))


def finish_template(token: str) -> tuple[tuple[Any, ...], Template]:
    """What a worker sends first, and then again and again."""
    fetch = Fetch(want=BATCH, token=token, lock_ms=30_000)
    now_ms = int(time.time() * 1000)
    job = FinishedJob("1", token, "completed", "null", attempts=1)

    def finishing(count: int) -> tuple[Any, ...]:
        answer = [[0] * count, 0, "0", 0]
        return _recorded(answer, lambda scripts: scripts.move_to_finished(now_ms, [job] * count, fetch))

    first = _recorded([0, "0", 0], lambda scripts: scripts.move_to_active(now_ms, fetch))
    return first, Template(finishing(1), finishing(2))


class Bare(Adapter):
    is_async: ClassVar = False
    missing: ClassVar = dict.fromkeys(
        ("many", "round", "idle", "paced", "sync", "size", "prioritized", "delayed", "flows", "retries"),
        "only adds and drains",
    )
    pending: ClassVar = tuple(f"bull:{QUEUE}:{state}" for state in ("wait", "active"))
    kept: ClassVar = f"bull:{QUEUE}:completed"
    distributions: ClassVar = ("hiredis",)

    def open(self) -> None:
        self._wires = [Wire(self.url) for _ in range(2)]
        for name in SCRIPTS:
            self._wires[0].ask("SCRIPT", "LOAD", load(name).text)
        self._add = add_template()

    def add(self, data: dict[str, Any], **options: Any) -> None:
        self._wires[0].ask(*self._add.of(["noop"]))

    def add_bulk(self, datas: list[dict[str, Any]], **options: Any) -> None:
        batches = [len(datas[i : i + BATCH]) for i in range(0, len(datas), BATCH)]
        for i, size in enumerate(batches):
            wire = self._wires[i % 2]
            if i >= 2:
                wire.receive()
            wire.send(*self._add.of(["noop"] * size))
        for i in range(max(0, len(batches) - 2), len(batches)):
            self._wires[i % 2].receive()

    def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        wires = [Wire(self.url) for _ in range(2)]
        for name in SCRIPTS:
            wires[0].ask("SCRIPT", "LOAD", load(name).text)
        first, again = finish_template(f"{uuid.uuid4()}:1")
        held = [cast("list[str]", wire.ask(*first)[3::2]) for wire in wires]
        # Both are sent before either is awaited, so that the server has the next call while this process reads.
        for wire, ids in zip(wires, held, strict=True):
            if ids:
                wire.send(*again.of(ids))
        while any(held):
            for lane, wire in enumerate(wires):
                if held[lane]:
                    answer = wire.receive()
                    if any(answer[0]):
                        raise SystemExit(f"the server refused an end: {answer[0]}")
                    tally.hits(len(held[lane]))
                    held[lane] = answer[4::2]
                    if held[lane]:
                        wire.send(*again.of(held[lane]))
        time.sleep(3600)


if __name__ == "__main__":
    main(Bare)
