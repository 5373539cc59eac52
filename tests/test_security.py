"""The rules of SECURITY.md that no other test proves: what comes from a job chooses no code, anywhere."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

import toril
from tests.patience import ended, until
from tests.proofs import parsed
from toril import Job, JobFailedError, Limits, Queue, TorilError, Worker

ROOT = Path(__file__).resolve().parents[1]
SOURCES = Path(toril.__file__).parent

DANGEROUS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}
# The command line imports the module that a person has named; a job never gets there.
# The child of a sandbox is told by its worker's code which function to import, never by a job.
MAY_IMPORT_BY_NAME = {"cli/worker.py", "cli/app.py", "cli/__init__.py", "_sandbox/words.py"}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(parsed(path)):
            yield path.relative_to(SOURCES).as_posix(), node


def test_nothing_can_rebuild_objects_or_run_text() -> None:
    """No pickle and its like, no eval, no exec, and no import by a name except where a person types it."""
    found: list[str] = []
    for where, node in nodes():
        if isinstance(node, ast.Import):
            found += [f"{where}: {name.name}" for name in node.names if name.name.split(".")[0] in DANGEROUS]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DANGEROUS:
            found.append(f"{where}: {node.module}")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "compile", "__import__"):
                found.append(f"{where}: {called}")
            if called.endswith("import_module") and where not in MAY_IMPORT_BY_NAME:
                found.append(f"{where}: {called}")
    assert not found


def test_lua_is_never_put_together() -> None:
    """Scripts are files; they load no code, and Python sends nothing but their text or their hash."""
    for path in (SOURCES / "scripts").rglob("*.lua"):
        assert not re.search(r"loadstring|\bload\(|dofile|\bEVAL", path.read_text()), path.name
    for where, node in nodes():
        if isinstance(node, ast.Constant) and node.value in ("EVAL", "EVALSHA"):
            assert where in {
                "scripts/__init__.py", "scripts/loader.py", "_loops/heartbeat.py", "_cluster.py", "cli/doctor.py",
            }, where  # fmt: skip
        if isinstance(node, ast.JoinedStr):
            assert "redis.call" not in ast.unparse(node), where


@pytest.mark.parametrize(
    "name", ["os.system", "builtins:eval", "toril.cli", "__import__", "../../etc", "antigravity"]
)
async def test_a_jobs_name_imports_nothing(queue: Queue, name: str) -> None:
    """It is looked up among the processors that the program has defined; another name is a failure, and no more."""

    @queue.processor("known")
    async def known() -> None: ...

    before = set(sys.modules)
    job = await queue.add(name, {"__class__": "os.system", "py/object": "os.system", "args": ["true"]})
    async with Worker(queue):
        await known.add()
        if not await job.is_failed():
            # A worker may also leave it to others; either way it has not run.
            assert await job.get_state() in ("waiting", "active", "delayed", "failed")
    assert "antigravity" not in set(sys.modules) - before


async def test_an_error_is_text_for_whoever_waits(queue: Queue) -> None:
    """Its class is not rebuilt from what is stored, whatever that looks like."""

    async def process(job: Any) -> None:
        raise PermissionError(f"builtins.{job.name} {{'py/object': 'os.system'}}")

    job = await queue.add("SystemExit")
    async with Worker(queue, process):
        (error,) = await ended(job)
    assert type(error) is JobFailedError
    assert error.failed_reason == "builtins.SystemExit {'py/object': 'os.system'}"


@pytest.mark.parametrize("port", ["the server's", "1"])
async def test_a_password_is_in_no_error_log_or_traceback(
    server_url: str, prefix: str, port: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither where the server refuses it nor where there is no server; causes of the error included."""
    number = server_url.rpartition(":")[2].split("/")[0] if port != "1" else port
    url = f"redis://ada:hunter2@127.0.0.1:{number}/0"
    caplog.set_level("DEBUG")
    async with Queue("tests", connection=url, prefix=prefix) as queue:
        with pytest.raises(TorilError) as caught:
            await queue.add("paint")
        worker = Worker(queue, lambda job: None)
        with pytest.raises((TorilError, TimeoutError)) as ended:
            async with asyncio.timeout(0.3), worker:
                await asyncio.sleep(1)
        told = [
            *traceback.format_exception(ended.value),
            *traceback.format_exception(caught.value),
            repr(caught.value),
            repr(queue),
            repr(worker),
        ]
    assert caplog.text or port != "1"
    assert "hunter2" not in "".join(told) + caplog.text


async def test_what_jobs_hold_is_in_no_log(
    queue: Queue, client: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Data, results, progress and rows of a log stay out of a worker's own words, whatever becomes of the job."""
    caplog.set_level("DEBUG")

    @queue.processor("typed")
    async def typed(number: int) -> None: ...

    @queue.processor("untyped", attempts=2, backoff=0.01)
    async def untyped(job: Job, what: str) -> str:
        await job.update_progress(what)
        await job.log(what)
        if job.attempts_made == 0:
            raise ValueError("the first time")
        return what

    @queue.processor("slow", timeout=0.01)
    async def slow(what: str) -> None:
        await asyncio.sleep(60)

    @queue.processor("large")
    async def large(what: str) -> str:
        return what * 10_000

    jobs = [
        await queue.add("typed", {"number": "hunter2"}),
        await queue.add("typed", {"hunter2": "hunter2"}),
        await untyped.add("hunter2"),
        await slow.add("hunter2"),
        await large.add("hunter2"),
        await queue.add("typed", "hunter2"),
    ]
    spoilt = await queue.add("typed", {"number": 1})
    await client.hset(queue.keys.job(spoilt.id), "data", "{hunter2")
    stray = await queue.add("nobody-knows", "hunter2")
    queue.limits = Limits(return_value=100)
    async with Worker(queue):
        results = await ended(*jobs, spoilt)
        await until("it is put off", stray.is_delayed)

    assert results[2] == "hunter2"
    assert [type(result) for result in results if result != "hunter2"] == [JobFailedError] * 6
    assert caplog.records
    assert "hunter2" not in caplog.text
