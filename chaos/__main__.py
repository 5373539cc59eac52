"""`python -m chaos`: play the fault matrix, and write down what came of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
from typing import Any, get_args

from .cells import CELLS, SMOKE
from .matrix import play_all
from .report import RESULTS, machine, write_page
from .stage import Client


def tell(line: dict[str, Any]) -> None:
    """One JSON line on stdout, one for people on stderr."""
    print(json.dumps(line), flush=True)
    shown = {
        key: line.get(key)
        for key in (
            "jobs",
            "executed",
            "lost",
            "duplicates",
            "explained",
            "false_failed",
            "recover_s",
            "seconds",
        )
    }
    words = " ".join(f"{key}={value}" for key, value in shown.items())
    why = "; ".join([*line["violations"], line.get("note", "")])[:400]
    print(
        f"{line['status'].upper():4} {line['cell']:>4} {line['client']:6} {words} {why}",
        file=sys.stderr,
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Play the fault matrix.")
    parser.add_argument(
        "--cells", default="", help="keys of cells with commas between; a number means all of its row"
    )
    parser.add_argument(
        "--clients", default="toril,bullmq,bullmq-python", help=f"of {', '.join(get_args(Client))}"
    )
    parser.add_argument(
        "--size", type=float, default=1.0, help="of each cell; 1 is the matrix, 0.3 the smoke test"
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="the same faults again, as far as chance is ours"
    )
    parser.add_argument(
        "--at-once", type=int, default=2, help="cells that run beside each other; some run alone all the same"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=48,
        help="after which nothing begins, and what still runs is broken off",
    )
    parser.add_argument("--slack", type=float, default=1.0, help="by which recoveries may take longer")
    parser.add_argument("--smoke", action="store_true", help=f"only the cells {', '.join(SMOKE)}")
    parser.add_argument(
        "--write", action="store_true", help="keep the lines in chaos/results, and write the table in docs"
    )
    options = parser.parse_args()
    names = [name for name in options.cells.split(",") if name]
    wanted = [
        key
        for key in sorted(CELLS, key=lambda key: CELLS[key].order)
        if not names or key in names or key.rstrip("abcdefgh") in names
    ]
    if options.smoke:
        wanted = [*SMOKE]
    if unknown := [
        name for name in names if not any(key == name or key.rstrip("abcdefgh") == name for key in CELLS)
    ]:
        parser.error(f"no cell {unknown[0]}; there are {', '.join(CELLS)}")
    clients: list[Client] = [name for name in get_args(Client) if name in options.clients.split(",")]
    pairs: list[tuple[str, Client]] = [
        (key, client) for key in wanted for client in clients if client in CELLS[key].clients
    ]
    seed = random.randrange(2**31) if options.seed is None else options.seed
    kept = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    # As Ctrl-C does: servers, processes and network links are taken down on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lines = asyncio.run(
        play_all(
            pairs,
            seed,
            options.size,
            options.slack,
            options.at_once,
            tell,
            minutes=options.minutes,
            expected={(line["cell"], line["client"]): line["seconds"] for line in kept},
        )
    )
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        # What was not played now stays as it was.
        fresh = {
            (line["cell"], line["client"]): {**line, "slack": options.slack, "machine": machine()}
            for line in lines
        }
        merged = {(line["cell"], line["client"]): line for line in kept} | fresh
        ordered = sorted(
            merged.values(),
            key=lambda line: (CELLS[line["cell"]].order, get_args(Client).index(line["client"])),
        )
        RESULTS.write_text("".join(json.dumps(line) + "\n" for line in ordered))
        write_page()
    return 1 if any(line["client"] == "toril" and line["status"] == "fail" for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
