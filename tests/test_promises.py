"""Promises cannot outlive their proofs: the tests and the rows of the fault matrix that SECURITY.md and the page of
promises name exist, are about what is promised, and are green.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from chaos.cells import CELLS

from .proofs import words_of

ROOT = Path(__file__).resolve().parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text()
PROMISES = (ROOT / "docs" / "explanation" / "guarantees.md").read_text()
RESULTS = ROOT / "chaos" / "results" / "matrix.jsonl"
MARK = r"\[([A-Z]\d+)\](?!:)"


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next of its level or above."""
    level, _, name = heading.partition(" ")
    found = re.search(
        rf"^{level} {re.escape(name)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", page, re.DOTALL | re.MULTILINE
    )
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def proofs(cell: str) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", cell)


RULES = rows(section(SECURITY, "## Rules, and what proves them"))
PROVEN = rows(section(PROMISES, "## What proves it"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[0][:40])
def test_a_rule_of_security_is_proven(rule: list[str]) -> None:
    """Its tests exist, and mention each word of code that the rule has."""
    says, named = rule[0], proofs(rule[1])
    assert named, "no test"
    found = [words_of(test) for test in named]
    for word in re.findall(r"`([^`]+)`", says):
        assert any(
            word in each.members | each.names or any(word in text for text in each.texts) for each in found
        ), f"none of its tests mentions {word}"


def test_each_promise_has_a_mark_and_each_mark_a_proof() -> None:
    """Whatever the page promises, in a list, a table or a paragraph, leads to a line of the table at its end."""
    unmarked: list[str] = []
    for heading in ("## The short version", "## Adding", "## Running: at least once", "## What the server may lose",
                    "## Time", "## Order"):  # fmt: skip
        text = section(PROMISES, heading).partition("\n### ")[0]
        items = re.split(r"\n(?=- |\d\. |\| )|\n\n", text.strip())
        for item in items:
            is_promise = re.match(r"- |\d\. ", item) or (item.startswith("| ") and "---" not in item)
            if is_promise and "| proof |" not in item and not re.search(MARK, item):
                unmarked.append(item[:80])
        assert re.search(MARK, text), f"{heading} promises nothing"
    assert unmarked == []
    used = set(re.findall(MARK, PROMISES.partition("## What proves it")[0]))
    assert used == {line[0].strip("*") for line in PROVEN}


@pytest.mark.parametrize("line", PROVEN, ids=lambda line: line[0])
def test_a_promise_is_proven(line: list[str]) -> None:
    """Its tests exist, its rows of the matrix are played, and were green when the matrix was recorded."""
    _, _, tests, cells = line
    named = proofs(tests)
    assert named, "no test"
    for test in named:
        words_of(test)
    green = {
        str(each["cell"])
        for each in map(json.loads, RESULTS.read_text().splitlines())
        if each["client"] == "toril" and each["status"] == "pass"
    }
    for cell in filter(None, cells.split(", ")):
        assert cell in CELLS, f"the matrix has no row {cell}"
        assert cell in green, f"row {cell} is red or was not played: say so where it is promised, or mend it"


def test_the_checks_see_a_lie() -> None:
    """A test that nobody wrote, a word that no test mentions, a row that is not there."""
    with pytest.raises(LookupError):
        test_a_promise_is_proven(["X1", "", "`tests/test_queue.py::test_that_nobody_wrote`", ""])
    with pytest.raises(AssertionError, match="none of its tests mentions nonsense"):
        test_a_rule_of_security_is_proven(
            ["no `nonsense`", "`tests/test_keys.py::test_ids_that_are_refused`"]
        )
    with pytest.raises(AssertionError, match="the matrix has no row 99"):
        test_a_promise_is_proven(["X1", "", "`tests/test_keys.py::test_ids_that_are_refused`", "99"])
