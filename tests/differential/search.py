"""Looks for programs that tell the clients apart, and makes those that do short enough to read.

`python -m tests.differential.search --minutes 10` (or `make differential MINUTES=10`) draws programs until its time is
over, other ones on each run unless `--seed` says which. Each divergence is printed as a short program, ready to be
pasted into `programs_of_found.py`; the last line says how many programs and steps there were.

Hypothesis draws the programs, and does not shorten them: it would take minutes, where leaving out steps takes a second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.interop.node import Node, why_no_node
from toril.embedded import EmbeddedServer

from .bench import Bench, Step, open_bench
from .strategies import EVERYTHING, Steps, programs

__all__ = ["Divergence", "draw", "find", "shorten"]

_MOST_TRIES = 400


@dataclass(frozen=True)
class Divergence(Exception):
    """A program after which the clients differ.

    Attributes:
        where: The move and the key that differ first, by which divergences are told apart.
        text: What differs.
    """

    program: Steps
    where: str
    text: str

    def __str__(self) -> str:
        told = "\n".join(f"    {step!r}," for step in self.program)
        return f"{self.text}\nprogram = [\n{told}\n]"


async def find(bench: Bench, program: Sequence[Step]) -> Divergence | None:
    """Run a program on both clients; return where they differ, if they do."""
    try:
        await bench.run(program)
    except AssertionError as error:
        text = str(error).partition("\nprogram = [")[0]
        step, _, rest = text.partition("\n")
        number, move = step.removeprefix("after step ").split(" ")[:2]
        key = re.sub(r"\d+", "N", rest.strip().split(": ")[0])
        return Divergence(list(program[: int(number) + 1]), f"{move} {key}", text)
    return None


async def shorten(bench: Bench, found: Divergence) -> Divergence:
    """Return a program that shows the same with as few steps as a bounded number of tries finds."""
    tries = 0
    size = len(found.program) // 2
    while size >= 1:
        start = 0
        while start < len(found.program) - 1 and tries < _MOST_TRIES:
            fewer = found.program[:start] + found.program[start + size :]
            tries += 1
            shown = await find(bench, fewer)
            if shown is not None and shown.where == found.where:
                found = shown
            else:
                start += size
        size //= 2
    return await _without_options(bench, found)


async def _without_options(bench: Bench, found: Divergence) -> Divergence:
    """Leave out options of jobs, one at a time."""
    for at in range(len(found.program)):
        move, args = found.program[at]
        options = args.get("options")
        for name in list(options) if isinstance(options, dict) else ():
            move, args = found.program[at]
            simpler = {key: value for key, value in args["options"].items() if key != name}
            step = (move, {**args, "options": simpler})
            shown = await find(bench, [*found.program[:at], step, *found.program[at + 1 :]])
            if shown is not None and shown.where == found.where and len(shown.program) == len(found.program):
                found = shown
    return found


def draw(drawn: st.SearchStrategy[Steps], count: int, first: int) -> list[Steps]:
    """Return programs, the same for the same seed."""
    found: list[Steps] = []

    @seed(first)
    @given(program=drawn)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
            HealthCheck.large_base_example,
        ],
    )
    def collect(program: Steps) -> None:
        found.append(program)

    collect()
    return found


# --- the command -----------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a search came to."""

    programs: int = 0
    moves: Counter[str] = field(default_factory=Counter[str])
    divergences: dict[str, Divergence] = field(default_factory=dict[str, Divergence])
    again: int = 0


async def search(bench: Bench, first: int, until: float, most: int | None) -> Tally:
    """Run programs until it is `until` by the monotonic clock, or there were `most`."""
    tally = Tally()
    for number in range(sys.maxsize):
        for program in draw(programs(EVERYTHING, 60), 100, first + number):
            if time.monotonic() >= until or (most is not None and tally.programs >= most):
                return tally
            tally.programs += 1
            tally.moves.update(move for move, _ in program)
            found = await find(bench, program)
            if found is None:
                continue
            if found.where in tally.divergences:
                tally.again += 1
                continue
            tally.divergences[found.where] = found
            print(f"\n--- {found.where}, seed {first + number}\n{await shorten(bench, found)}\n", flush=True)
        if number % 10 == 9:
            print(f"{tally.programs} programs, {bench.steps} steps", file=sys.stderr, flush=True)
    return tally


async def run(arguments: argparse.Namespace) -> Tally:
    node_is_missing = why_no_node()
    if node_is_missing is not None:
        raise SystemExit(node_is_missing)
    minutes = arguments.minutes if arguments.programs is None else 60 * 24
    with EmbeddedServer() as server:
        node = Node(server.url)
        try:
            async with open_bench(server.url, node, f"search-{uuid.uuid4().hex[:8]}") as bench:
                until = time.monotonic() + 60 * minutes
                tally = await search(bench, arguments.seed, until, arguments.programs)
                print(", ".join(f"{move} {count}" for move, count in tally.moves.most_common()))
                print(
                    f"seed {arguments.seed}: {tally.programs} programs, {bench.steps} steps compared, "
                    f"{bench.left_out} left out for known quirks, {len(tally.divergences)} divergences "
                    f"({tally.again} more programs showed one of them again)"
                )
                return tally
        finally:
            node.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.search", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long; default: 10")
    parser.add_argument("--programs", type=int, help="how many, however long it takes")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="which programs")
    arguments: Any = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    return 1 if asyncio.run(run(arguments)).divergences else 0


if __name__ == "__main__":
    sys.exit(main())
