"""The house itself: pinned versions, and the counting of tests."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import sections

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / "requirements" / name).read_text()))


def project(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_a_lock_file_holds_hashes_and_no_addresses(name: str) -> None:
    """Each version comes with its hashes, and no line says where it came from."""
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links", text)
    blocks = re.split(r"\n(?=\S)", text)
    assert [block for block in blocks if "==" in block and "--hash=sha256:" not in block] == []
    assert len(pins(name)) > 20


def test_the_lock_files_agree() -> None:
    """What `make run` installs is what was tested."""
    run, dev = pins("run.txt"), pins("dev.txt")
    assert {name: dev.get(name) for name in run} == run


def test_the_lock_files_are_not_stale() -> None:
    """What the projects ask for is pinned, in a version that they allow; else: make lock."""
    engine, platform = project("."), project("pharmacy_coverage")
    development = (ROOT / "dev" / "requirements.in").read_text().splitlines()
    run = [
        *engine["project"]["dependencies"],
        *engine["project"]["optional-dependencies"]["cli"],
        *engine["project"]["optional-dependencies"]["embedded"],
        *platform["project"]["dependencies"],
        *(line for line in development if line.strip() and not line.startswith("#")),
    ]
    groups = engine["dependency-groups"]
    dev = [
        *run,
        *platform["project"]["optional-dependencies"]["test"],
        *(item for group in groups.values() for item in group if isinstance(item, str)),
    ]
    for name, wanted in (("run.txt", run), ("dev.txt", dev)):
        held = pins(name)
        for requirement in map(Requirement, wanted):
            if requirement.name != "toril":
                version = held.get(canonicalize_name(requirement.name))
                assert version is not None, f"{requirement} is not in {name}: make lock"
                assert version in requirement.specifier, f"{requirement}: {name} has {version}: make lock"


def test_sections_count_every_outcome_once(tmp_path: Path) -> None:
    """A test that passes and then fails in its teardown has failed; an error before a test is a failure."""
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def breaks_after():\n    yield\n    assert False\n"
        "@pytest.fixture\n"
        "def breaks_before():\n    assert False\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_skipped(): pytest.skip('a reason')\n"
        "def test_teardown(breaks_after): pass\n"
        "def test_setup(breaks_before): pass\n"
    )
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--junit-xml={report}",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    count = sections.read(report)
    assert (count.passed, count.failed, count.skipped) == (1, 3, 1)


def test_every_test_belongs_to_one_section() -> None:
    """No directory of tests is left out of `make test`, and none is run twice."""
    engine = sections.SECTIONS["engine"]
    apart = {argument.removeprefix("--ignore=") for argument in engine if argument.startswith("--ignore=")}
    others = {path for name, paths in sections.SECTIONS.items() if name != "engine" for path in paths}
    assert apart == {path for path in others if path.startswith("tests/")}
    assert all((ROOT / path).is_dir() for path in others)
