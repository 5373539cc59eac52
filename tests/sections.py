"""Run the tests section by section and count them: `make test`.

Each section is one run of pytest, spread over the processors. The last line reads "N passed, N failed,
N skipped", over all sections. With arguments it is only one run of pytest with these.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

APART = ["tests/chaos", "tests/interop", "tests/differential", "tests/dev"]
SECTIONS: dict[str, list[str]] = {
    "engine": ["tests", *(f"--ignore={path}" for path in APART), "--server=both"],
    "interop": ["tests/interop"],
    "differential": ["tests/differential"],
    "chaos": ["tests/chaos"],
    "platform": ["pharmacy_coverage/tests"],
    "development": ["tests/dev"],
}

NO_TESTS = 5  # pytest's exit code


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    is_broken: bool = False
    """Pytest itself failed, perhaps before it counted anything."""

    def __add__(self, other: Count) -> Count:
        return Count(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.seconds + other.seconds,
            self.is_broken or other.is_broken,
        )


def run(section: str, arguments: list[str]) -> Count:
    print(f"\n== {section} ==", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        spread = ["-n", str(min(4, os.cpu_count() or 1)), "--dist=loadgroup"]
        # Skips are shown with their reasons: a missing server must not look like a passed test.
        command = [
            sys.executable,
            "-m",
            "pytest",
            *spread,
            "-rs",
            "--timeout=300",
            f"--junit-xml={report}",
            *arguments,
        ]
        code = subprocess.run(command, cwd=ROOT).returncode
        count = read(report) if report.exists() else Count()
    count.seconds = time.monotonic() - started
    count.is_broken = code not in (0, 1) or (code == 1 and not count.failed)
    return count


def read(report: Path) -> Count:
    """Count the cases of a JUnit report; one that passed and failed in its teardown has two entries."""
    outcomes: dict[tuple[str | None, str | None], str] = {}
    order = ("passed", "skipped", "failed")
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "failed"
        else:
            outcome = "skipped" if case.find("skipped") is not None else "passed"
        name = (case.get("classname"), case.get("name"))
        outcomes[name] = max(outcomes.get(name, outcome), outcome, key=order.index)
    found = list(outcomes.values())
    return Count(found.count("passed"), found.count("failed"), found.count("skipped"))


def main(arguments: list[str]) -> int:
    if arguments:
        return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT).returncode
    counts: dict[str, Count] = {}
    for section, selection in SECTIONS.items():
        if any((ROOT / selection[0]).rglob("test_*.py")):
            counts[section] = run(section, selection)
    total = sum(counts.values(), Count())
    print(f"\n{'':14}passed  failed  skipped  seconds")
    for section, count in counts.items():
        remark = "  pytest broke off" if count.is_broken else ""
        numbers = f"{count.passed:6}  {count.failed:6}  {count.skipped:7}  {count.seconds:7.0f}"
        print(f"{section:14}{numbers}{remark}")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)
    return 1 if total.failed or total.is_broken or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
