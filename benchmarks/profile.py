"""`python -m benchmarks profile`: where the time of a job goes, hop by hop.

Python's side is sampled by py-spy, which is in `benchmarks/.venv` and may look at other processes only as root or
where the system allows it. The server's side is its own `INFO commandstats`: what a script takes beyond its commands
is Lua's.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.arena import ROOT, Arena, BenchError, Program, await_count
from benchmarks.contestants import BENCHMARKS, CONTESTANTS
from benchmarks.tally import Reader

__all__ = ["Profile", "hop_of", "profile"]

SPY: Final = BENCHMARKS / ".venv" / "bin" / "py-spy"
_FRAME: Final = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(:\d+)?\)$")
_SAMPLES_PER_SECOND: Final = 400
_TOP: Final = 14
_LIMIT: Final = 120.0

HOPS: Final = {
    "_loops/fetching.py": "fetch and finish: building calls, taking answers apart",
    "_loops/running.py": "running: from a claim to the processor and back to an end",
    "_loops/heartbeat.py": "heartbeat",
    "scripts/": "scripts: arguments and answers",
    "connection.py": "connection",
    "_wire.py": "connection",
    "codec.py": "JSON",
    "job.py": "the `Job` object",
    "queue.py": "queue: preparing an add",
    "options.py": "options",
    "_batching.py": "batching of adds",
    "_adding.py": "batching of adds",
    "worker.py": "worker: limits, listeners",
}
"""Which hop a file of toril belongs to, by how its path ends or what is in it; another file is a hop of its own."""


@dataclass
class Profile:
    """What one process did.

    Attributes:
        title: Of its table.
        jobs: How many jobs it did that with.
        processor_us: What it used per job.
        hops: Samples by hop.
        functions: Samples by the function on top.
    """

    title: str
    jobs: int
    processor_us: float
    hops: Counter[str] = field(default_factory=Counter[str])
    functions: Counter[str] = field(default_factory=Counter[str])


def hop_of(stack: list[str]) -> str:
    """Return the hop of a sample: that of the deepest frame in toril, or whose time it is otherwise."""
    if stack and stack[-1].startswith("Runner.run ("):
        return "the event loop, and its system calls"
    for frame in reversed(stack):
        match = _FRAME.match(frame)
        file = match["file"] if match else ""
        if "/benchmarks/" in f"/{file}":
            return "the benchmark itself: its processor, its payloads"
        _, found, inside = f"/{file}".rpartition("/toril/")
        if found:
            return next((hop for part, hop in HOPS.items() if part in inside), inside)
    return "libraries, with no toril beneath"


def profile(jobs: int, *, say: Any = print) -> str:
    """Profile a drain and three ways to add; return tables as Markdown.

    Raises:
        BenchError: py-spy is not installed, or may not look.
    """
    if not SPY.exists():
        raise BenchError(f"{SPY.relative_to(ROOT)} is missing: make bench installs it")
    parts: list[str] = []
    with Arena() as arena:
        for kind, count in (("drain", jobs), ("one", jobs // 5), ("many", jobs), ("bulk", jobs)):
            arena.empty()
            found, before, after = _drain(arena, count) if kind == "drain" else _add(arena, kind, count)
            parts += [_python_table(found), _server_table(found, before, after)]
            say(f"profiled {found.title}", flush=True)
    return "\n\n".join(parts)


def _drain(arena: Arena, jobs: int) -> tuple[Profile, dict[str, Any], dict[str, Any]]:
    producer = arena.producer(CONTESTANTS["toril"])
    try:
        producer.hear(time.monotonic() + _LIMIT)
        producer.tell({"do": "fill", "n": jobs})
        producer.hear(time.monotonic() + _LIMIT)
        tally = arena.new_tally()
        worker = arena.worker(CONTESTANTS["toril"], tally, concurrency=100, threads=0, prioritized=False)
        try:
            seen = await_count(Reader(tally), jobs // 20, [worker], time.monotonic() + _LIMIT)
            before, used = _stats(arena), worker.processor_seconds()
            with _spied(worker) as samples:
                await_count(Reader(tally), jobs, [worker], time.monotonic() + _LIMIT)
                used = worker.processor_seconds() - used
            after = _stats(arena)
        finally:
            worker.end()
    finally:
        producer.end()
    measured = jobs - seen
    return _profile("a worker that drains", measured, used / measured * 1e6, samples), before, after


def _add(arena: Arena, kind: str, jobs: int) -> tuple[Profile, dict[str, Any], dict[str, Any]]:
    titles = {"one": "adding one by one", "many": "adding, 1,000 awaited at once", "bulk": "adding in bulk"}
    producer = arena.producer(CONTESTANTS["toril"])
    try:
        producer.hear(time.monotonic() + _LIMIT)
        producer.tell({"do": kind, "n": 1000})
        producer.hear(time.monotonic() + _LIMIT)
        before = _stats(arena)
        with _spied(producer) as samples:
            producer.tell({"do": kind, "n": jobs})
            answer = producer.hear(time.monotonic() + _LIMIT)
        after = _stats(arena)
    finally:
        producer.end()
    return _profile(titles[kind], jobs, answer["cpu"] / jobs * 1e6, samples), before, after


@contextlib.contextmanager
def _spied(program: Program) -> Generator[Path]:
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as log:
        path = Path(scratch) / "samples"
        target = Path(tempfile.mkstemp(prefix="toril-profile-")[1])
        spy = subprocess.Popen(
            [
                *(str(SPY), "record", "--pid", str(program.pid), "--rate", str(_SAMPLES_PER_SECOND)),
                # Only who holds the interpreter is at work; who waits for an answer does not.
                *("--gil", "--format", "raw", "--duration", str(int(_LIMIT)), "--output", str(path)),
            ],
            stdout=log,
            stderr=log,
        )
        try:
            time.sleep(0.3)
            yield target
        finally:
            # It writes what it has when it is interrupted.
            spy.send_signal(signal.SIGINT)
            spy.wait(timeout=30)
            if path.exists():
                target.write_bytes(path.read_bytes())
            else:
                log.seek(0)
                target.unlink()
                said = log.read().decode(errors="replace").strip().splitlines()
                raise BenchError(f"py-spy saw nothing: {said[-1] if said else 'it said nothing'}")


def _profile(title: str, jobs: int, processor_us: float, samples: Path) -> Profile:
    found = Profile(title, jobs, processor_us)
    for line in samples.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if not frame.startswith(("process ", "thread "))]
        found.hops[hop_of(frames)] += int(count)
        found.functions[_top(frames)] += int(count)
    samples.unlink()
    return found


def _top(frames: list[str]) -> str:
    match = _FRAME.match(frames[-1]) if frames else None
    if match is None:
        return frames[-1] if frames else "?"
    return f"`{match['function']}` ({'/'.join(match['file'].split('/')[-2:])})"


def _stats(arena: Arena) -> dict[str, Any]:
    stats: Any = arena.client.info("commandstats")
    cpu: Any = arena.client.info("cpu")
    return {"commands": stats, "cpu": cpu["used_cpu_user"] + cpu["used_cpu_sys"]}


def _python_table(found: Profile) -> str:
    total = sum(found.hops.values()) or 1

    def rows(counter: Counter[str], most: int) -> str:
        return "\n".join(
            f"| {name} | {count / total * found.processor_us:.2f} | {count / total:.0%} |"
            for name, count in counter.most_common(most)
        )

    return (
        f"**Python, {found.title}**: {found.processor_us:.1f} µs of the processor per job ({total:,} samples "
        f"over {found.jobs:,} jobs).\n\n| hop | µs per job | share |\n|---|--:|--:|\n{rows(found.hops, 20)}\n\n"
        f"| function on top | µs per job | share |\n|---|--:|--:|\n{rows(found.functions, _TOP)}"
    )


def _server_table(found: Profile, before: dict[str, Any], after: dict[str, Any]) -> str:
    spent: dict[str, tuple[float, float]] = {}
    for name, stat in after["commands"].items():
        old = before["commands"].get(name, {"calls": 0, "usec": 0})
        calls, usec = stat["calls"] - old["calls"], stat["usec"] - old["usec"]
        if calls and not name.startswith("cmdstat_info"):
            spent[name.removeprefix("cmdstat_").upper()] = (calls / found.jobs, usec / found.jobs)
    scripts = sum(usec for name, (_, usec) in spent.items() if name in {"EVALSHA", "EVAL"})
    inside = sum(usec for name, (_, usec) in spent.items() if name not in {"EVALSHA", "EVAL"})
    processor = (after["cpu"] - before["cpu"]) / found.jobs * 1e6
    lines = [
        f"| {name} | {calls:.2f} | {usec:.2f} |"
        for name, (calls, usec) in sorted(spent.items(), key=lambda item: -item[1][1])
    ]
    return (
        f"**The server, {found.title}**: {processor:.1f} µs of the processor per job. Scripts run for "
        f"{scripts:.1f} µs, {inside:.1f} of them in their commands and {scripts - inside:.1f} in Lua.\n\n"
        "| command | calls per job | µs per job |\n|---|--:|--:|\n" + "\n".join(lines)
    )
