"""A worker's children: starts them, hands them jobs, answers what jobs ask, and kills what does not end.

A child runs one job at a time and is kept for the next. It ends when its pipe closes, so it cannot outlive its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..codec import loads
from ..errors import ConfigurationError, DelayedError, LockLostError, SandboxError
from .words import (
    HEAD,
    HELLO,
    LONGEST_FRAME,
    VERBS,
    Frame,
    check_target,
    described,
    frame_of,
    resolved,
    steered,
)

if TYPE_CHECKING:
    from .._loops.claims import Settings
    from ..job import Job
    from ..queue import Queue

__all__ = ["Sandboxes", "check_process", "check_sandboxes"]

# After SIGTERM, until SIGKILL; shorter than what a worker has left for handing jobs back.
_KILL_GRACE: Final = 2.0
# For Python to start and the function's module to be imported.
_LONGEST_START: Final = 60.0
# How long a job waits if the system has no room for a process.
_NO_ROOM_WAIT: Final = 5
# `-m toril...` would import from the working directory first, and only then be told the worker's path.
_PROGRAM: Final = """\
import sys, json
sys.path[:] = json.loads(sys.argv.pop())
from toril._sandbox.child import main
main()
"""

logger = logging.getLogger("toril.worker")


def check_process(process: object, where: str) -> None:
    """Refuse what is neither a function of the job nor the text that names one.

    Raises:
        ConfigurationError: It is neither.
    """
    is_name = isinstance(process, str) and ":" in process
    if process is not None and not callable(process) and not is_name:
        raise ConfigurationError(
            f"{where}: process must be a function, or its 'package.module:name' as text; got {type(process).__name__}"
        )
    if callable(process):
        body = process if inspect.isroutine(process) else type(process).__call__
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise ConfigurationError(f"{where}: a generator is no processor; return the result instead")
        try:
            inspect.signature(process).bind(None)
        except TypeError as error:
            raise ConfigurationError(f"{where}: process is called with the job alone: {error}") from None
        except ValueError:
            pass  # Some builtins do not tell what they take.


def check_sandboxes(queue: Queue, process: object) -> None:
    """Make sure that children will find what a worker is to run in them.

    Raises:
        ConfigurationError: They would not; says which function, and why.
    """
    if isinstance(process, str):
        try:
            resolved(process)
        except ConfigurationError as error:
            raise ConfigurationError(f"worker of queue {queue.name!r}: process: {error}") from None
    elif process is None:
        for processor in queue.processors.values():
            if processor.target is not None:
                where = f"processor {processor.name!r} of queue {queue.name!r}"
                check_target(processor.target, processor.function, where)


class _ChildDied(Exception):
    def __init__(self, *, has_begun: bool) -> None:
        super().__init__()
        self.has_begun = has_begun


class _Child:
    """A process, and how to speak to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.requests = process.stdin
        self._frames = process.stdout
        self._has_said_hello = False
        self.jobs = 0

    @classmethod
    async def start(cls) -> _Child:
        # In a group of its own Ctrl-C reaches the worker alone, and what the processor has started dies with it.
        group: dict[str, Any] = (
            {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PROGRAM,
            # Whatever else stands there, such as a Path, Python passes over.
            json.dumps([entry for entry in sys.path if isinstance(entry, str)]),  # pyright: ignore[reportUnnecessaryIsInstance]
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **group,
        )
        return cls(process)

    @property
    def is_fit(self) -> bool:
        return self.process.returncode is None and not self._frames.at_eof()

    def send(self, frame: Frame) -> None:
        self.requests.write(frame_of(frame))

    async def receive(self) -> Frame | None:
        """Return what it says next; None where it has gone."""
        try:
            if not self._has_said_hello:
                await self._frames.readuntil(HELLO)
                self._has_said_hello = True
            size = int.from_bytes(await self._frames.readexactly(HEAD), "big")
            if size > LONGEST_FRAME:
                raise SandboxError(f"the processor's process sent {size} bytes at once")
            frame: Frame = msgspec.json.decode(await self._frames.readexactly(size))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            return None
        return frame

    def signal(self, number: int) -> None:
        """Signal the process and those that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self.process.kill()
            else:
                os.killpg(self.process.pid, number)

    async def ended(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.process.wait()
        return self.process.returncode is not None


class Sandboxes:
    """The children of one worker: as many as run jobs at once, started when they are needed, kept for later.

    Args:
        queue: Whose jobs.
        settings: The worker's.
    """

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self._queue = queue
        self._settings = settings
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._ending: set[asyncio.Task[int | None]] = set()
        self._is_closed = False

    async def run(
        self, target: str, job: Job[Any], *, timeout: float | None = None, is_typed: bool = False
    ) -> Any:
        """Run a job in a child and return what it returned, or raise what it raised.

        Whatever ends the waiting, a timeout or a cancellation, ends the child first.

        Args:
            target: `module:name` of the function.
            job: What it is called with.
            timeout: How many seconds it may take, once it has begun.
            is_typed: Call it with the arguments that the job's data holds.

        Raises:
            SandboxError: The processor raised, or the process died; says how.
            TimeoutError: It took too long.
            UnrecoverableError, DelayedError, WaitingError, WaitingChildrenError, RateLimitError: It asked for that.
        """
        order: Frame = {
            "run": target,
            "id": job.id,
            "record": _record(job),
            "queue": self._queue.name,
            "prefix": self._queue.prefix,
            "url": self._queue.connection._url,  # pyright: ignore[reportPrivateUsage]
            "is_typed": is_typed,
        }
        while True:
            child = await self._take()
            is_used = child.jobs > 0
            try:
                frame = await self._converse(child, job, order, timeout)
            except _ChildDied as death:
                code = await asyncio.shield(self._end(child, _KILL_GRACE))
                if is_used and not death.has_begun:
                    # It died between two jobs, which is not this one's fault.
                    continue
                raise SandboxError(_death(code)) from None
            except GeneratorExit:
                # The event loop is gone; nothing can be awaited any more.
                child.signal(_SIGKILL)
                raise
            except BaseException:
                await asyncio.shield(self._end(child))
                raise
            self._keep(child)
            if "done" in frame:
                return loads(frame["done"], f"job {job.id!r}: return value")
            raise steered(frame)

    async def close(self) -> None:
        """End all children; those that run a job are killed."""
        self._is_closed = True
        for child in [*self._busy]:
            self._end(child)
        for child in self._idle:
            self._retire(child)
        self._idle.clear()
        while self._ending:
            await asyncio.wait(self._ending)

    async def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            self._busy.add(child)
            if child.is_fit:
                return child
            self._end(child)
        try:
            child = await _Child.start()
        except OSError as error:
            logger.error(
                "queue %r: no process can be started for a job (%s); it waits %d s",
                self._queue.name,
                error,
                _NO_ROOM_WAIT,
            )
            raise DelayedError(_NO_ROOM_WAIT) from error
        self._busy.add(child)
        return child

    def _keep(self, child: _Child) -> None:
        self._busy.discard(child)
        most = self._settings.max_jobs_per_child
        is_worn = most is not None and child.jobs >= most
        # The concurrency can be lowered while the worker runs.
        is_surplus = len(self._busy) + len(self._idle) >= self._settings.concurrency
        if self._is_closed or is_worn or is_surplus:
            self._retire(child)
        else:
            self._idle.append(child)

    async def _converse(self, child: _Child, job: Job[Any], order: Frame, timeout: float | None) -> Frame:
        """Let a child run a job, and do what the job asks for, until it has ended."""
        child.jobs += 1
        has_begun = False
        limit = asyncio.timeout(_LONGEST_START)
        try:
            async with limit:
                child.send(order | {"number": child.jobs})
                while (frame := await child.receive()) is not None:
                    if "begun" in frame:
                        has_begun = True
                        now = asyncio.get_running_loop().time()
                        limit.reschedule(None if timeout is None else now + timeout)
                    elif "call" in frame:
                        child.send(await _answer(child, job, frame))
                    elif frame.get("number") == child.jobs:
                        return frame
        except TimeoutError as error:
            if not limit.expired():
                raise
            if has_begun:
                raise TimeoutError(f"timed out after {timeout:g} s") from error
            raise TimeoutError(
                f"the processor's module was not imported within {_LONGEST_START:g} s"
            ) from error
        raise _ChildDied(has_begun=has_begun)

    def _end(self, child: _Child, patience: float = 0) -> asyncio.Task[int | None]:
        """Kill a child, after so many seconds; the task returns its exit code."""
        self._busy.discard(child)

        async def kill() -> int | None:
            try:
                if not (patience and await child.ended(patience)):
                    child.signal(signal.SIGTERM)
                    await child.ended(_KILL_GRACE)
            finally:
                # Also what it has started, and where the event loop is being closed under us.
                child.signal(_SIGKILL)
                child.requests.close()
            await child.ended(_KILL_GRACE)
            return child.process.returncode

        task = asyncio.get_running_loop().create_task(kill())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    def _retire(self, child: _Child) -> None:
        """Let an idle child end by itself, in good order."""
        child.requests.close()
        self._end(child, _KILL_GRACE)


_SIGKILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


async def _answer(child: _Child, job: Job[Any], frame: Frame) -> Frame:
    """Do what a job asks for, with the worker's claim on it."""
    answer: Frame = {"reply": frame["call"]}
    try:
        if frame["number"] != child.jobs:
            # A thread of an earlier job's processor has outlived it.
            raise LockLostError(frame["id"], "its attempt has ended", job.queue.name)
        if frame["verb"] not in VERBS:
            raise ConfigurationError(f"job {job.id!r}: {frame['verb']} is not possible in a sandbox")
        value = await getattr(job, frame["verb"])(*frame["args"], **frame["kwargs"])
        answer["value"] = _record(job) if frame["verb"] == "refresh" else value
    except Exception as error:
        answer["error"] = described(error)
    return answer


def _record(job: Job[Any]) -> dict[str, str]:
    return job._record  # pyright: ignore[reportPrivateUsage]


def _death(code: int | None) -> str:
    if code is None:
        return "the processor's process does not answer, and could not be killed"
    if code >= 0:
        return f"the processor's process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps by the system, for want of memory" if -code == _SIGKILL else ""
    return f"the processor's process was killed by {name}{hint}"
