"""The command line: `toril worker`, `server`, `doctor`, `queue`, `job`, `cron`, `workers`, `events`, `why`.

It needs the extra `toril[cli]`.

Every command takes `--json` for programs, every flag has a `TORIL_…` variable. Exit codes: 0 all is well, 1 a
problem was found, 2 wrong usage, 3 no connection to the server.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its code."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"toril: the command line needs {' and '.join(missing)}: run `pip install 'toril[cli]'`",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from toril.cli.app import app
    from toril.cli.output import steady_streams

    # Here too, since wrong usage is told before any command begins.
    steady_streams()
    app(prog_name="toril")
