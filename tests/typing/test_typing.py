"""The types flow from a processor to `add` and to the result, for mypy and for pyright.

The programs beside this file are checked, not run: `accepted.py` has to be without an error, and
`refused.txt` has one on each line that says so (it is no `.py`, since `make check` would refuse it too).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(program: Path) -> set[int]:
    """Return the lines of a program that mypy complains about."""
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-error-summary",
            "--hide-error-context",
            str(program),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", run.stdout, re.MULTILINE)
    elsewhere = [" ".join(row) for row in found if Path(row[0]).name != program.name]
    assert not elsewhere, "errors outside of the program: " + "\n".join(elsewhere)
    return {int(line) for _, line, _ in found}


def pyright(program: Path) -> set[int]:
    """Return the lines of a program that pyright complains about."""
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", str(program)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    diagnostics = json.loads(run.stdout)["generalDiagnostics"]
    return {row["range"]["start"]["line"] + 1 for row in diagnostics if row["severity"] == "error"}


@pytest.mark.parametrize("check", [mypy, pyright])
def test_what_is_right_is_accepted(check: Callable[[Path], set[int]]) -> None:
    """Arguments, results and options have the types that the processor gives them."""
    assert check(HERE / "accepted.py") == set()


@pytest.mark.parametrize("check", [mypy, pyright])
def test_what_is_wrong_is_refused(check: Callable[[Path], set[int]], tmp_path: Path) -> None:
    """Each wrong line is an error, and right lines are none."""
    program = tmp_path / "refused.py"
    program.write_text((HERE / "refused.txt").read_text())
    wrong = {
        number for number, line in enumerate(program.read_text().splitlines(), 1) if line.endswith("# error")
    }
    assert check(program) == wrong
