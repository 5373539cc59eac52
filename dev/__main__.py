"""`python -m dev`: run the platform and every server it needs, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 after an orderly stop, 1 where something did not start or already runs."""
    if sys.platform == "win32":
        print("This needs Linux or macOS; on Windows run it inside WSL2.", file=sys.stderr)
        return 1
    # Needs what Windows lacks.
    from dev.console import Console
    from dev.description import read_description, table
    from dev.runner import NAMES, ROOT, AlreadyRunningError, Options, Runner, is_in_use

    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    parser.add_argument(
        "command", nargs="?", choices=["run", "status"], default="run", help="status: say what runs where"
    )
    parser.add_argument("--dir", type=Path, default=ROOT / ".run", help="data and logs (default: .run)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="where the platform listens (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, help="the platform's port (default: 8000, or a free one)")
    parser.add_argument(
        "--without-workers",
        action="store_true",
        help="leave jobs in their queues; the platform works all the same",
    )
    given = parser.parse_args(arguments)
    console = Console(list(NAMES))
    dir: Path = given.dir.resolve()
    if given.command == "status":
        description = read_description(dir) if is_in_use(dir) else None
        if description is None:
            console.say("Nothing runs. Start it: make run")
            return 1
        console.say(table(description, console))
        return 0
    options = Options(dir=dir, host=given.host, port=given.port, with_workers=not given.without_workers)
    try:
        return asyncio.run(Runner(options, console).run())
    except AlreadyRunningError as error:
        if error.description is None:
            console.say("It is being started or stopped elsewhere right now. Wait a moment, then try again.")
        else:
            console.say(f"It already runs, as process {error.description['pid']}:\n")
            console.say(table(error.description, console))
            console.say("\nStop it with Ctrl-C where it was started, or open another with --dir.")
        return 1


if __name__ == "__main__":
    sys.exit(main())
