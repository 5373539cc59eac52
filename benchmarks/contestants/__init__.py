"""One small adapter per contestant, and the list of them all."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["CONTESTANTS", "Contestant"]

BENCHMARKS: Final = Path(__file__).resolve().parents[1]
Environment = Literal["own", "node", ".venv", ".venv-arq", ".venv-saq"]


@dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: On the command line and in the JSON.
        title: In tables and charts.
        program: The adapter's module, or the Node program.
        environment: Where it is installed: toril's own, one in this folder, or Node.
        add_rate: A first guess of jobs/s of its fastest add, until a round has measured it.
        run_rate: Likewise of a worker.
        idle_gap: Seconds between the jobs of an idle queue, long enough that one has ended before the next comes.
        is_peer: Takes part in "the fastest Python peer".
        is_async_client: Takes part in "the fastest async Python peer".
    """

    name: str
    title: str
    program: str
    environment: Environment
    add_rate: int
    run_rate: int
    idle_gap: float = 0.01
    is_peer: bool = True
    is_async_client: bool = True

    def command(self) -> list[str]:
        """Return the program, without its role."""
        if self.environment == "node":
            return ["node", str(BENCHMARKS / "contestants" / self.program)]
        python = (
            sys.executable
            if self.environment == "own"
            else str(BENCHMARKS / self.environment / "bin" / "python")
        )
        return [python, "-m", f"benchmarks.contestants.{self.program}"]

    def absence(self) -> str:
        """Say what it needs that is not here, or nothing."""
        if self.environment == "node":
            if shutil.which("node") is None:
                return "Node.js is missing"
            if not (BENCHMARKS.parent / "interop" / "node_modules" / "bullmq").is_dir():
                return "interop/node_modules is missing: make bench installs it"
        elif self.environment != "own" and not (BENCHMARKS / self.environment).is_dir():
            return f"benchmarks/{self.environment} is missing: make bench installs it"
        return ""


CONTESTANTS: Final[dict[str, Contestant]] = {
    contestant.name: contestant
    for contestant in (
        Contestant("toril", "toril", "toril", "own", 30_000, 12_000, is_peer=False),
        Contestant("bare", "bare loop", "bare", "own", 50_000, 20_000, is_peer=False),
        Contestant("floor", "the layout's writes", "floor", "own", 50_000, 20_000, is_peer=False),
        Contestant("bullmq-node", "BullMQ, Node", "bullmq_node.mjs", "node", 7_500, 4_500, is_peer=False),
        Contestant("bullmq-python", "BullMQ, Python", "peers.bullmq_python", ".venv", 6_500, 1_100),
        Contestant("arq", "arq", "peers.arq", ".venv-arq", 2_200, 900),
        Contestant("taskiq", "taskiq", "peers.taskiq", ".venv", 1_700, 1_500),
        Contestant("saq", "saq", "peers.saq", ".venv-saq", 3_200, 950),
        Contestant("streaq", "streaq", "peers.streaq", ".venv", 5_500, 500),
        Contestant(
            "celery", "celery", "peers.celery", ".venv", 1_000, 480, idle_gap=0.02, is_async_client=False
        ),
        Contestant(
            "dramatiq",
            "dramatiq",
            "peers.dramatiq",
            ".venv",
            3_400,
            2_700,
            idle_gap=0.02,
            is_async_client=False,
        ),
        Contestant("rq", "rq", "peers.rq", ".venv", 4_000, 150, idle_gap=0.03, is_async_client=False),
        Contestant("huey", "huey", "peers.huey", ".venv", 5_000, 2_000, is_async_client=False),
    )
}
