"""`toril worker`: run the workers that a program defines, until it is told to stop."""

from __future__ import annotations

import asyncio
import difflib
import functools
import gc
import importlib
import importlib.util
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NoReturn, cast

import typer

from toril import ConfigurationError, Queue, TorilError, Worker
from toril._loops.signals import heard, is_urgent
from toril.cli.common import PROBLEM, USAGE, Json, Url, complain, errors_explained
from toril.cli.health import Address, served

__all__ = ["worker"]

LogLevel = Literal["debug", "info", "warning", "error"]

# So many seconds after the last worker is ready, nothing is made any more that stays.
_SETTLED = 1.0

logger = logging.getLogger("toril.cli")


def worker(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:NAME...",
            help="Where the workers are: a Worker, a Queue with processors, or a list of these.",
        ),
    ],
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            envvar="TORIL_CONCURRENCY",
            min=1,
            help="How many jobs of each Queue run at once; a Worker has its own. Default: 1.",
            show_default=False,
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            envvar="TORIL_GRACE",
            min=0,
            help="Seconds that jobs of each Queue may take to end after SIGTERM. Default: 30.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            envvar="TORIL_WORKER_NAME", help="Shown in dashboards, for each Queue.", show_default=False
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="TORIL_LOG_LEVEL", help="The least that is logged.")
    ] = "info",
    health: Address = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Run workers until SIGTERM, SIGHUP or Ctrl-C. Running jobs may end within the grace; a second signal, or SIGQUIT,
    ends it at once.

    Each job is logged to stderr as it becomes active, completed or failed; with --json a line is an object.
    The event loop is uvloop's where uvloop is installed.
    """
    if url is not None:
        # The program's queues look there themselves, as it is imported.
        os.environ["TORIL_URL"] = url
    with errors_explained(as_json=as_json):
        options = {"concurrency": concurrency, "grace": grace, "name": name}
        given = {key: value for key, value in options.items() if value is not None}
        workers = load(targets, given)
        set_up_logging(log_level, as_json=as_json)
        with served(health, workers), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(work(workers))


# --- finding them --------------------------------------------------------------------------------------------


def load(targets: list[str], options: dict[str, Any]) -> list[Worker]:
    """Import what the targets name, and return one worker for each queue or worker among it.

    Args:
        targets: `module:name`, where the name may have dots.
        options: For workers that are made here, of queues.
    """
    # As `python -m` does; a script's own sys.path begins with the directory that it was installed to.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: list[Worker] = []
    queues: list[Queue] = []
    for target in targets:
        for member in _members(target, _resolve(target)):
            if isinstance(member, Worker) and member not in found:
                found.append(member)
            elif isinstance(member, Queue) and member not in queues:
                if not member.processors:
                    raise ConfigurationError(
                        f"{target}: queue {member.name!r} has no processors to run its jobs with; "
                        "name a module that imports those that define them"
                    )
                queues.append(member)
    return found + [Worker(queue, **options) for queue in queues]


def _resolve(target: str) -> object:
    module_name, colon, path = target.partition(":")
    if not module_name or not colon or not path:
        complain(f"{target!r}: write MODULE:NAME, such as myapp.jobs:emails", USAGE)
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that it imports itself may be the one that is missing: that is a fault of the program.
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            complain(
                f"{target!r}: there is no module {error.name!r}, neither in {os.getcwd()} nor installed",
                USAGE,
            )
        _tell_failed_import(target, error)
    except TorilError:
        raise
    except Exception as error:
        _tell_failed_import(target, error)
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            near = difflib.get_close_matches(part, dir(value), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            complain(f"{target!r}: {module_name} has no {path!r}{hint}", USAGE)
    return value


def _tell_failed_import(target: str, error: Exception) -> NoReturn:
    """End with the traceback of a program's own mistake, from where the program begins."""
    begin = error.__traceback__
    while begin is not None and (
        begin.tb_frame.f_code.co_filename in (__file__, importlib.__file__)
        or begin.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        begin = begin.tb_next
    traceback.print_exception(type(error), error, begin)
    complain(f"{target!r}: importing it failed, see above", PROBLEM)


def _members(target: str, value: object) -> Iterator[Worker | Queue]:
    if isinstance(value, (Worker, Queue)):
        yield value
    elif isinstance(value, (list, tuple)) and value:
        for member in cast("list[object]", value):
            yield from _members(target, member)
    else:
        kind = "an empty list" if isinstance(value, (list, tuple)) else type(value).__name__
        complain(f"{target!r} is {kind}; it must be a Worker, a Queue, or a list of these", USAGE)


# --- running them --------------------------------------------------------------------------------------------


async def work(workers: list[Worker]) -> None:
    """Run workers side by side until a signal. If one cannot go on, the others are stopped in good order.

    Raises:
        TorilError: Why the first one could not go on.
    """
    loop = asyncio.get_running_loop()
    _freeze_when_ready(workers)
    tasks = [loop.create_task(worker.run(handle_signals=False)) for worker in workers]
    await asyncio.sleep(0)  # a worker can be stopped once it has begun
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        if len(received) > 2:
            # Not even handing back works: the server is gone. Its jobs are taken back when their locks run out.
            os._exit(128 + number)
        is_hurried = len(received) > 1 or is_urgent(number)
        how = (
            "handing back running jobs" if is_hurried else "waiting for running jobs; again to hand them back"
        )
        logger.info("%s: stopping, %s", number.name, how)
        for worker in workers:
            worker.stop(now=is_hurried)

    with heard(stop):
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for worker in workers:
                worker.stop()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for worker in workers:
                await worker.queue.close()
    for answer in answers:
        if isinstance(answer, TorilError):
            raise answer
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


def _freeze_when_ready(workers: list[Worker]) -> None:
    """Spare the garbage collector what is there to stay, once all of it is: modules, queues, workers.

    It would walk through all of that again and again, while jobs wait.
    """
    starting = set(workers)

    def ready(worker: Worker) -> None:
        starting.discard(worker)
        if not starting:
            # Each still opens its connections.
            asyncio.get_running_loop().call_later(_SETTLED, freeze)

    def freeze() -> None:
        if not gc.get_freeze_count():
            gc.collect()
            gc.freeze()

    for worker in workers:
        worker.on("ready", functools.partial(ready, worker))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


# --- logging -------------------------------------------------------------------------------------------------


def set_up_logging(level: LogLevel, *, as_json: bool) -> None:
    """Log to stderr, or to where the program has said; a level that it has given to `toril` stays."""
    root, ours = logging.getLogger(), logging.getLogger("toril")
    if root.handlers:
        # Else a plain basicConfig() in the program, whose level is WARNING, would make the worker seem dead.
        if ours.level == logging.NOTSET:
            ours.setLevel(level.upper())
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else HumanLines())
    root.addHandler(handler)
    root.setLevel(level.upper())


class HumanLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")


class JsonLines(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, `error` where there is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        # With escapes: what stderr's character set lacks it would write as something that is no JSON.
        return json.dumps(line)
