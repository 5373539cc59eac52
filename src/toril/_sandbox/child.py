"""What runs in a sandbox: one job after another, on the main thread, until the worker closes the pipe.

A second thread reads the pipe. When that closes while a job runs, the worker is dead and the process ends at once.
On Linux the system ends it too, even if the processor never lets another thread run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import faulthandler
import functools
import inspect
import io
import itertools
import os
import queue as queues
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec

from .. import Job, Queue, SerializationError, UnrecoverableError
from .._loops.reasons import reason_of, trace_of
from .._signature import Signature, dump_result
from ..codec import dumps, loads
from ..errors import ConfigurationError
from ..job_children import Dependencies, DependenciesPage, DependencyCounts
from ..processor import Processor
from ..sync import SyncJob
from .words import HEAD, HELLO, VERBS, Frame, frame_of, raised, rebuilt, resolved

__all__ = ["main"]

# How long a child that is to end waits for threads that its jobs have left behind.
_LAST_WORDS: Final = 1.0
_OWN_FILES: Final = (__file__, asyncio.runners.__file__)

_SHAPES: Final[dict[str, Callable[..., Any]]] = {
    "get_dependencies": Dependencies,
    "get_dependencies_count": DependencyCounts,
    "get_dependencies_page": DependenciesPage,
}


def main() -> None:
    """Serve the worker that has started this process."""
    _die_with_the_worker()
    requests, replies = _take_pipes()
    faulthandler.enable(2)
    link = _Link(requests, replies)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=link.forget)
    threading.Thread(target=link.read, name="toril-sandbox", daemon=True).start()
    with asyncio.Runner() as runner:
        while (order := link.next_order()) is not None:
            _serve(link, runner, order)


class _Link:
    """The pipes to the worker."""

    def __init__(self, requests: io.BufferedReader, replies: io.BufferedWriter) -> None:
        self._requests = requests
        self._replies = replies
        self._orders: queues.SimpleQueue[Frame | None] = queues.SimpleQueue()
        self._calls: dict[int, concurrent.futures.Future[Any]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._is_running = False

    def read(self) -> None:
        """Take in what the worker says, until it closes the pipe."""
        while (frame := self._frame()) is not None:
            if "reply" not in frame:
                self._is_running = True
                self._orders.put(frame)
                continue
            future = self._calls.pop(frame["reply"])
            if not future.set_running_or_notify_cancel():
                # Whoever asked waits no longer, as after a timeout of the processor's own.
                continue
            if "error" in frame:
                future.set_exception(rebuilt(frame["error"]))
            else:
                future.set_result(frame["value"])
        if self._is_running:
            os._exit(1)
        self._orders.put(None)
        time.sleep(_LAST_WORDS)
        os._exit(1)

    def forget(self) -> None:
        """Close the pipes in a fork that a processor makes; held open there, they would hide our death."""
        # Not the buffers around them: another thread may have been reading as this one forked.
        self._requests.raw.close()
        self._replies.raw.close()

    def next_order(self) -> Frame | None:
        return self._orders.get()

    def end(self, frame: Frame) -> None:
        self._is_running = False
        self.send(frame)

    def send(self, frame: Frame) -> None:
        # A dead worker is the reader's business.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._replies.write(frame_of(frame))
            self._replies.flush()

    async def ask(self, job: Job[Any], number: int, verb: str, args: Any, kwargs: Any) -> Any:
        """Let the worker do something with the job. From any event loop."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        call = next(self._numbers)
        what = f"job {job.id!r}: {verb}"
        args, kwargs = loads(dumps([[*map(_plain, args)], {k: _plain(v) for k, v in kwargs.items()}], what))
        self._calls[call] = future
        self.send(
            {"call": call, "number": number, "id": job.id, "verb": verb, "args": args, "kwargs": kwargs}
        )
        return await asyncio.wrap_future(future)

    def _frame(self) -> Frame | None:
        head = self._requests.read(HEAD)
        size = int.from_bytes(head, "big")
        body = self._requests.read(size) if len(head) == HEAD else b""
        if not body or len(body) < size:
            # Nothing more, or half of a frame: the worker has closed the pipe, or was killed while it wrote.
            return None
        frame: Frame = msgspec.json.decode(body)
        return frame


class _SandboxedJob(Job[Any]):
    """A job whose verbs its worker does. The moves are not among them: raising makes the move."""

    __slots__ = ("ask",)

    def __init__(self, queue: Queue, order: Frame, link: _Link) -> None:
        super().__init__(queue, order["id"], order["record"])
        self.ask = functools.partial(link.ask, self, order["number"])

    async def refresh(self) -> None:
        record = await self.ask("refresh", (), {})
        Job.__init__(self, self.queue, self.id, record)

    async def update_progress(self, progress: Any) -> None:
        await self.ask("update_progress", (progress,), {})
        self.note(progress=dumps(progress))

    async def update_data(self, data: Any) -> None:
        await self.ask("update_data", (data,), {})
        Job.__init__(self, self.queue, self.id, self._record | {"data": dumps(data)})


def _asked(verb: str) -> Callable[..., Any]:
    @functools.wraps(getattr(Job, verb))
    async def ask(self: _SandboxedJob, *args: Any, **kwargs: Any) -> Any:
        value = await self.ask(verb, args, kwargs)
        return _SHAPES[verb](**value) if verb in _SHAPES else value

    return ask


def _refused(verb: str) -> Callable[..., Any]:
    @functools.wraps(getattr(Job, verb))
    async def refuse(self: _SandboxedJob, *args: Any, **kwargs: Any) -> Any:
        raise ConfigurationError(
            f"job {self.id!r}: {verb} is not possible in a sandbox; a processor moves its job by what it raises"
        )

    return refuse


for _verb in VERBS - vars(_SandboxedJob).keys():
    setattr(_SandboxedJob, _verb, _asked(_verb))
for _verb in (
    "change_delay",
    "move_to_completed",
    "move_to_delayed",
    "move_to_failed",
    "move_to_wait",
    "move_to_waiting_children",
    "promote",
    "remove",
    "result",
    "retry",
):
    setattr(_SandboxedJob, _verb, _refused(_verb))


def _serve(link: _Link, runner: asyncio.Runner, order: Frame) -> None:
    try:
        call = _call_of(link, order)
        link.send({"begun": True})
        value = call()
        if inspect.isawaitable(value):
            value = runner.run(_awaited(value))
        text = "null" if value is None else _dumped(order, value)
        frame: Frame = {"done": text}
    except BaseException as error:
        frame = raised(error, reason_of(error), trace_of(error, _OWN_FILES))
    link.end(frame | {"number": order["number"]})


def _dumped(order: Frame, value: Any) -> str:
    what = f"job {order['id']!r}: return value"
    if not order["is_typed"]:
        return dumps(value, what)
    found = resolved(order["run"])
    return dump_result(value, what, found.function if isinstance(found, Processor) else found)


def _call_of(link: _Link, order: Frame) -> Callable[[], Any]:
    """Return the call that a job stands for."""
    found = resolved(order["run"])
    job = _SandboxedJob(_queue_of(found, order), order, link)
    if not order["is_typed"]:
        function = found.function if isinstance(found, Processor) else found
        return functools.partial(function, job if inspect.iscoroutinefunction(function) else SyncJob(job))
    try:
        if isinstance(found, Processor):
            return functools.partial(found.function, **found.arguments(job))
        return functools.partial(found, **Signature.of(found, f"processor {job.name!r}").arguments(job))
    except SerializationError as error:
        # The same data will fit no better next time.
        raise UnrecoverableError(str(error)) from error


def _queue_of(found: Any, order: Frame) -> Queue:
    """The job's queue: the program's own object where that is it, for its options."""
    if isinstance(found, Processor) and (found.queue.name, found.queue.prefix) == (
        order["queue"],
        order["prefix"],
    ):
        return found.queue
    # At the worker's server, whatever this process would take for its own.
    return _queue(order["queue"], order["prefix"], order["url"])


@functools.cache
def _queue(name: str, prefix: str, url: str) -> Queue:
    return Queue(name, connection=url, prefix=prefix)


async def _awaited(value: Any) -> Any:
    return await value


def _plain(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _take_pipes() -> tuple[io.BufferedReader, io.BufferedWriter]:
    """Keep the pipes to ourselves: what a processor prints goes where the worker's errors go."""
    # First, since it takes the place of the worker's stderr where that is closed.
    null = os.open(os.devnull, os.O_RDWR)
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    replies.write(HELLO)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null != 2:
        os.close(null)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return requests, replies


def _die_with_the_worker() -> None:
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    # The system means the thread that has started us: the one that runs the worker's event loop, which ends no earlier
    # than the worker unless a program moves its loop from thread to thread.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
