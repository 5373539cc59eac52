"""The reference client, driven from Python: `interop/driver.js` at the other end of a pipe.

`Node` is the process and the pipe; `NodeQueue`, `NodeWorker` and `NodeEvents` are its objects under the names that
the reference client gives them. A thread reads the answers, so that one process can serve tests with event loops of
their own, and tests without one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, cast
from urllib.parse import urlsplit

__all__ = [
    "UNDEFINED",
    "Event",
    "Node",
    "NodeError",
    "NodeEvents",
    "NodeFlows",
    "NodeProducer",
    "NodeQueue",
    "NodeWorker",
    "server_options",
    "why_no_node",
]

INTEROP = Path(__file__).resolve().parents[2] / "interop"
UNDEFINED = {"$undefined": True}
"""JavaScript's `undefined`, wherever a value goes."""

Json = Any


def why_no_node() -> str | None:
    """Say why the reference client cannot run here; None where it can."""
    node = shutil.which("node")
    if node is None:
        return "Node.js is not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        return f"Node.js {version} is too old, 20 is needed"
    if not (INTEROP / "node_modules" / "bullmq").is_dir():
        return "the reference client is not installed: npm ci --prefix interop"
    return None


def server_options(url: str) -> dict[str, Json]:
    """A server's address as the reference client takes it."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return {"path": parts.path}
    return {"host": parts.hostname, "port": parts.port}


class NodeError(Exception):
    """The reference client threw. `name` is the class of its error."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


@dataclass(frozen=True, slots=True)
class Event:
    """Something that an object of the driver told by itself. `args` are the listener's arguments."""

    of: str
    name: str
    args: list[Json]

    @property
    def job_id(self) -> str | None:
        """The id of the job that it is about, wherever the reference client puts it."""
        if not self.args:
            return None
        first = self.args[0]
        if isinstance(first, dict):
            about = cast("dict[str, Json]", first)
            return cast("str | None", about.get("jobId", about.get("id")))
        return cast("str | None", first)


@dataclass(eq=False, slots=True)
class _Waiter:
    of: str
    wanted: Callable[[Event], bool]
    found: Future[Event] = field(default_factory=Future[Event])


class Node:
    """One driver process. `stop` ends it; so does the end of ours.

    Args:
        url: The server.
        package: The reference client: `bullmq`, or `bullmq5` for its last version before 6.
    """

    def __init__(self, url: str, package: str = "bullmq") -> None:
        self._lock = threading.Lock()
        self._answers: dict[int, Future[Json]] = {}
        self._events: list[Event] = []
        self._waiters: list[_Waiter] = []
        self._ids = itertools.count(1)
        self._process = subprocess.Popen(
            ["node", str(INTEROP / "driver.js"), package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, name="node-driver", daemon=True).start()
        self.do("connect", options=server_options(url))

    # --- speaking ---

    def send(self, command: str, **args: Json) -> Future[Json]:
        """Send a command; the future is its result, or `NodeError`."""
        answer: Future[Json] = Future()
        number = next(self._ids)
        with self._lock:
            self._answers[number] = answer
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"id": number, "command": command, **args}) + "\n")
            self._process.stdin.flush()
        return answer

    def do(self, command: str, *, deadline: float = 20, **args: Json) -> Json:
        """Send a command and wait for its result, blocking."""
        return self.send(command, **args).result(deadline)

    async def ask(self, command: str, *, deadline: float = 20, **args: Json) -> Json:
        """Send a command and await its result."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.send(command, **args)), deadline)
        except TimeoutError:
            raise TimeoutError(
                f"Node did not answer {command} {str(args)[:300]} within {deadline} s"
            ) from None

    def stop(self) -> None:
        """End the process. Its workers die as in a crash: close them first where that matters."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the process the hard way, kill -9."""
        self._process.kill()
        self._process.wait()

    # --- listening ---

    def events(self, of: str, name: str | None = None) -> list[Event]:
        """What the object with the handle `of` has told so far."""
        with self._lock:
            return [event for event in self._events if event.of == of and name in (None, event.name)]

    async def event(
        self, of: str, wanted: Callable[[Event], bool], what: str, *, deadline: float = 20
    ) -> Event:
        """Await the first event of `of` that is `wanted`, past ones included."""
        waiter = _Waiter(of, wanted)
        with self._lock:
            for event in self._events:
                if event.of == of and wanted(event):
                    return event
            self._waiters.append(waiter)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(waiter.found), deadline)
        except TimeoutError:
            told = [(event.name, event.job_id) for event in self.events(of)]
            raise TimeoutError(f"no {what} within {deadline} s; {of} told {told}") from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Json] = json.loads(line)
            if "event" in message:
                self._hear(Event(message["of"], message["event"], message["args"]))
                continue
            with self._lock:
                answer = self._answers.pop(message["id"])
            if answer.cancelled():
                continue
            if message["ok"]:
                answer.set_result(message["result"])
            else:
                answer.set_exception(NodeError(message["error"]["name"], message["error"]["message"]))
        with self._lock:
            orphans = list(self._answers.values())
            self._answers.clear()
        for answer in orphans:
            if not answer.done():
                answer.set_exception(NodeError("Gone", "the driver ended before it answered"))

    def _hear(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)
            heard = [waiter for waiter in self._waiters if waiter.of == event.of and waiter.wanted(event)]
            self._waiters = [waiter for waiter in self._waiters if waiter not in heard]
        for waiter in heard:
            if not waiter.found.done():
                waiter.found.set_result(event)


class _Object:
    """One of the driver's objects: made on entering its block, closed on leaving it."""

    kind: ClassVar[str]
    _numbers = itertools.count(1)

    def __init__(self, node: Node, queue: str, *, prefix: str, **options: Json) -> None:
        self.node = node
        self.queue = queue
        self.options = {"prefix": prefix, **options}
        self.handle = f"{self.kind}-{queue}-{next(_Object._numbers)}"
        self._is_open = False

    def _arguments(self) -> dict[str, Json]:
        return {}

    async def open(self) -> None:
        await self.node.ask(
            self.kind, handle=self.handle, name=self.queue, options=self.options, **self._arguments()
        )
        self._is_open = True

    async def close(self, *, force: bool = False) -> None:
        if self._is_open:
            self._is_open = False
            await self.node.ask("close", handle=self.handle, force=force)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        # What is still running is abandoned: a test that fails does not wait for the job that it blocked.
        await self.close(force=True)

    async def call(self, method: str, *args: Json) -> Json:
        """Call any of its methods by the reference client's name; a job comes back as a dict of its properties."""
        return await self.node.ask("call", handle=self.handle, method=method, args=args)

    def told(self, name: str | None = None) -> list[Event]:
        """What it has told by itself so far, oldest first."""
        return self.node.events(self.handle, name)

    async def event(self, name: str, job_id: str | None = None, *, times: int = 1) -> Event:
        """Await its `times`-th event of that name, about that job if one is given; past ones count."""

        def is_wanted(event: Event) -> bool:
            if event.name != name or job_id not in (None, event.job_id):
                return False
            nonlocal times
            times -= 1
            return times == 0

        return await self.node.event(self.handle, is_wanted, f"event {name} of {job_id or 'any job'}")


class NodeQueue(_Object):
    """The reference client's `Queue`."""

    kind = "queue"

    async def add(self, name: str, data: Json = None, **options: Json) -> dict[str, Json]:
        """Add a job; options have the reference client's names."""
        return cast("dict[str, Json]", await self.call("add", name, data, options))

    async def job(self, job_id: str) -> dict[str, Json] | None:
        return cast("dict[str, Json] | None", await self.call("getJob", job_id))

    async def on_job(self, job_id: str, method: str, *args: Json) -> Json:
        """Call a method of a job, which is read afresh."""
        return await self.node.ask("job", queue=self.handle, jobId=job_id, method=method, args=args)

    async def counts(self) -> dict[str, int]:
        """The states that are not empty, with their counts."""
        counts = cast("dict[str, int]", await self.call("getJobCounts"))
        return {state: count for state, count in counts.items() if count}


class NodeWorker(_Object):
    """The reference client's `Worker`.

    Args:
        scripts: What a job does, by its name or `"*"`: for each start of a job a list of steps `[name, argument]`, the
            last list for all later starts. Steps: progress, log, data, sleep (ms), gate (waits for `open_gate`),
            extend (ms), throw ({message, stack?, unrecoverable?}), delay (ms), add-children ({queue, names}),
            wait-for-children, until-cancelled, return, return-children (a list of what they returned). A list that
            does not return returns the job's data. Without scripts the worker takes jobs only when told to.
        options: The reference client's; and `backoffs`, a list of ms, as its custom backoff strategy.
    """

    kind = "worker"

    def __init__(
        self, node: Node, queue: str, scripts: dict[str, Json] | None = None, *, prefix: str, **options: Json
    ) -> None:
        super().__init__(node, queue, prefix=prefix, **options)
        self.scripts = scripts

    def _arguments(self) -> dict[str, Json]:
        return {"scripts": self.scripts}

    async def open_gate(self, name: str) -> None:
        await self.node.ask("open-gate", name=name)


class NodeFlows(_Object):
    """The reference client's `FlowProducer`, which belongs to no queue."""

    kind = "flows"

    def __init__(self, node: Node, *, prefix: str) -> None:
        super().__init__(node, "", prefix=prefix)


class NodeEvents(_Object):
    """The reference client's `QueueEvents`, from the stream's beginning unless told otherwise."""

    kind = "events"

    def __init__(self, node: Node, queue: str, *, prefix: str, **options: Json) -> None:
        super().__init__(node, queue, prefix=prefix, **{"lastEventId": "0-0", **options})


class NodeProducer(_Object):
    """The reference client's `QueueEventsProducer`."""

    kind = "producer"
