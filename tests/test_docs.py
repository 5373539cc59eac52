"""README and docs say what is true: their code runs, their links lead somewhere, and the reference is complete.

Above a block of code stands what is to be done with it:

    <!-- file: NAME -->                 saved under this name, beside the page's other files
    <!-- run -->                        run as a program
    <!-- run beside: toril worker … --> run while this command runs in the background
    <!-- prints -->                     what the program above must have printed
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import toril
from toril.embedded import EmbeddedServer
from toril.errors import ConfigurationError

from .programs import DEADLINE, Running

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "changes" / "README.md",
    ROOT / "examples" / "README.md",
    *sorted(DOCS.rglob("*.md")),
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block, and the comment above it, if there is one."""

    language: str
    code: str
    order: str


def blocks(page: Path) -> Iterator[Block]:
    pattern = r"(?:<!-- ([^\n]+?) -->\n+)?^```(\w*)\n(.*?)^```$"
    for order, language, code in re.findall(pattern, page.read_text(), re.DOTALL | re.MULTILINE):
        yield Block(language, code, order)


def orders(page: Path) -> list[Block]:
    return [block for block in blocks(page) if re.match(r"file: |run$|run beside: |prints$", block.order)]


def load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return load(DOCS / "generate.py")


@pytest.mark.parametrize("page", [page for page in PAGES if orders(page)], ids=name_of)
def test_the_code_runs(page: Path, tmp_path: Path) -> None:
    """What a page says about its programs is what they do, on a server of their own."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(EmbeddedServer())
        except ConfigurationError as error:
            pytest.skip(str(error))
        environment = {**os.environ, "TORIL_URL": server.url}
        printed = ""
        for number, block in enumerate(orders(page)):
            what, _, rest = block.order.partition(": ")
            if what == "file":
                (tmp_path / rest).write_text(block.code)
            elif what == "prints":
                assert printed == block.code
            else:
                program = tmp_path / f"program_{number}.py"
                program.write_text(block.code)
                with ExitStack() as beside:
                    if rest:
                        assert rest.startswith("toril ")
                        command = [sys.executable, "-m", "toril.cli", *rest.split()[1:]]
                        worker = beside.enter_context(Running(command, server.url, tmp_path))
                        worker.wait_for_text("ready")
                    done = subprocess.run(
                        [sys.executable, str(program)],
                        cwd=tmp_path,
                        env=environment,
                        capture_output=True,
                        text=True,
                        timeout=DEADLINE,
                    )
                assert done.returncode == 0, done.stderr
                printed = done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_is_python(page: Path) -> None:
    """Also a fragment can be parsed; `await` may stand at its top."""
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, name_of(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Links to files and headings of this repository exist."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(file), f"{name_of(page)}: there is no heading {anchor!r} in {file.name}"


def test_each_page_can_be_found() -> None:
    """From the index, or from the list of decisions, there is a link to each page."""
    listed = (DOCS / "index.md").read_text() + (DOCS / "decisions" / "README.md").read_text()
    pages = [page for page in DOCS.rglob("*.md") if page != DOCS / "index.md"]

    assert [
        name_of(page)
        for page in pages
        if f"{page.parent.name}/{page.name}" not in listed and f"]({page.name})" not in listed
    ] == []


def test_the_reference_is_what_the_code_says(generate: ModuleType) -> None:
    """The parts that come from the code are up to date: `python docs/generate.py`."""
    stale = [
        page.name
        for page in (DOCS / "reference").glob("*.md")
        if generate.rewritten(page.read_text()) != page.read_text()
    ]

    assert stale == [], "run: python docs/generate.py"


def test_the_reference_is_complete() -> None:
    """Each public name stands in the reference."""
    reference = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))

    assert [name for name in toril.__all__ if not re.search(rf"\b{name}\b", reference)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path, generate: ModuleType) -> None:
    """A page shows no command of `toril` that there is not, and no unknown option."""
    commands = generate.commands()
    for line in re.findall(r"^[$>] toril ([^#\n]+)", page.read_text(), re.MULTILINE):
        words = ["toril", *line.split()]
        path = next((name for size in (3, 2) if (name := " ".join(words[:size])) in commands), None)
        assert path is not None, f"there is no `{' '.join(words)}`"
        known = {option for parameter in commands[path].params for option in parameter.opts}
        unknown = [word for word in words if word.startswith("--") and word not in known]
        assert unknown == [], f"`{path}` has no {unknown}"


def test_make_targets_exist() -> None:
    """What README and CONTRIBUTING say about `make` is in the Makefile."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        target
        for page in ("README.md", "CONTRIBUTING.md")
        for target in re.findall(r"(?:`|\$ )make (\w+)", (ROOT / page).read_text())
    }

    assert shown - targets == set()


def test_the_tree_in_contributing_is_true() -> None:
    """Each file and folder that the drawing names exists."""
    (drawing,) = re.findall(r"```text\n(├──.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    parents = [ROOT]
    for line in drawing.splitlines():
        match = re.match(r"((?:│   )*)[├└]── (.*)", line)
        assert match is not None, line
        depth = len(match[1]) // 4
        # Names are two spaces apart; three or more begin what is said about them.
        names = re.split(r" {3,}", match[2])[0].split("  ")
        assert [name for name in names if not (parents[depth] / name).exists()] == [], line
        if names[0].endswith("/"):
            parents[depth + 1 :] = [parents[depth] / names[0]]
