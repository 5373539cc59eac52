"""Draw `queue-at-work.svg`: what two terminals really show while a worker runs a few jobs.

`python docs/images/record.py` does it anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from toril import Exponential, Queue
from toril.embedded import EmbeddedServer

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
WIDTH = 130
TORIL = [sys.executable, "-m", "toril.cli"]
# Pictures show the file as it is; no font is fetched from elsewhere.
SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def work(url: str) -> list[str]:
    """Start a worker, add jobs, and return what the worker logged until all have ended."""
    environment = {**os.environ, "TORIL_URL": url}
    worker = subprocess.Popen(
        [*TORIL, "worker", "retry:emails", "--concurrency", "4"],
        cwd=EXAMPLES,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    timer = threading.Timer(60, worker.kill)
    timer.start()
    lines: list[str] = []
    queue = Queue("emails-with-retries", connection=url)
    for line in worker.stderr:
        lines.append(line.rstrip().replace(url, "redis://localhost:6379"))
        if "ready" in line:
            queue.sync.add(
                "send-email", {"to": "umair@example.com"}, attempts=4, backoff=Exponential(base=0.2)
            )
            queue.sync.add("send-email", {"to": "umair"})
        elif "completed" in line:
            worker.terminate()
    timer.cancel()
    queue.sync.close()
    return lines


def ask(url: str, *arguments: str) -> str:
    environment = {**os.environ, "TORIL_URL": url, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    done = subprocess.run([*TORIL, *arguments], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def log_line(line: str) -> Text:
    text = Text(line)
    for words, style in (
        (r"INFO|toril\.\w+", "dim"),
        (r"\bactive\b", "cyan"),
        (r"\bcompleted\b", "green"),
        (r"\bfailed\b", "red"),
    ):
        text.highlight_regex(words, style)
    return text


def main() -> None:
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115

    def command(words: str) -> None:
        console.print(Text.assemble(("$ ", "green"), (words, "bold")))

    with EmbeddedServer() as server:
        lines = work(server.url)
        command("toril worker retry:emails --concurrency 4")
        for line in lines:
            console.print(log_line(line))
        for words in ("queue ls", "job ls emails-with-retries"):
            console.print()
            command(f"toril {words}")
            console.print(Text.from_ansi(ask(server.url, *words.split()).strip()))
    # A fixed id, so that the same output is the same file.
    console.save_svg(
        str(HERE / "queue-at-work.svg"), title="toril", code_format=SVG_FORMAT, unique_id="toril"
    )


if __name__ == "__main__":
    main()
