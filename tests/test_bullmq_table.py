"""The table of BullMQ's names cannot lie: each name is in it, what it says is here exists, and its tests mention it.

The names are in `interop/inventory.json`, which `tests/interop/test_inventory.py` compares with the reference client;
what they are here is in `interop/bullmq.toml`.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

import toril
import toril.telemetry
from toril.worker import WorkerEvent

from .proofs import names_of_tests, words_of
from .test_docs import DOCS, load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return load(DOCS / "generate.py")


@pytest.fixture(scope="module")
def table(generate: ModuleType) -> dict[tuple[str, str], Any]:
    """(section, member) -> what it is here; a list of a name and its tests, or why it is not there."""
    entries: dict[tuple[str, str], Any] = generate.bullmq_entries()
    return entries


def test_every_name_of_bullmq_is_decided(generate: ModuleType, table: dict[tuple[str, str], Any]) -> None:
    """Nothing that the reference client has is left out, and nothing is told of that it has not."""
    names = set(generate.bullmq_names())
    undecided = [name for name in names if table.get(name) is None]

    assert sorted(undecided) == []
    assert sorted(table.keys() - names) == []
    assert generate.unused_groups() == []


def test_every_name_of_toril_exists(table: dict[tuple[str, str], Any]) -> None:
    """By import, attribute, parameter, key of a type, event or state."""
    wrong = [
        f"{key}: {entry[0]}"
        for key, entry in table.items()
        if isinstance(entry, list) and not exists(entry[0])
    ]

    assert wrong == []


def test_every_test_exists_and_mentions_it(table: dict[tuple[str, str], Any]) -> None:
    """A test that proves something calls it, passes it, or awaits it by name."""
    wrong: list[str] = []
    for key, entry in table.items():
        if not isinstance(entry, list):
            continue
        name, *proofs = entry
        if not proofs:
            wrong.append(f"{key}: no test")
        for proof in proofs:
            path, _, test = proof.partition("::")
            try:
                words = words_of(f"tests/{path}.py::{test}")
            except LookupError as error:
                wrong.append(f"{key}: {error}")
                continue
            word, is_member = word_of(name)
            if word not in words.members and (is_member or word not in words.names | words.texts):
                wrong.append(f"{key}: {proof} does not mention {word}")

    assert wrong == []


def test_what_is_said_to_be_missing_is_missing(table: dict[tuple[str, str], Any]) -> None:
    """Where a method of this name has come meanwhile, the table has to say so."""
    homes = {"class QueueGetters": "Queue", "class QueueBase": "Queue"}
    there: list[str] = []
    for (section, member), entry in table.items():
        home = homes.get(section, section.removeprefix("class "))
        if isinstance(entry, str) and section.startswith("class ") and hasattr(toril, home):
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", member).lower()
            if name in vars(object) or name == "opts":
                continue
            if hasattr(getattr(toril, home), name) or member == home:
                there.append(f"{section} {member}: toril has {home}.{name}")

    assert there == []


def test_events_have_bullmqs_fields(generate: ModuleType) -> None:
    """What an event says in BullMQ it says here, by the headers of the scripts that write it."""
    fields = generate.fields_of_events()
    wrong: list[str] = []
    for event, expected in generate.inventory()["events"]["QueueEventsListener"].items():
        if event not in ("error",):
            said = {re.sub(r"\W.*", "", field) for field in fields[event]}
            wrong += [f"{event}: no {field}" for field in expected if field not in said]

    assert wrong == []


def test_the_checks_see_a_lie() -> None:
    """A name that is not there, and a test that says nothing of it."""
    assert exists("Queue.add")
    assert not exists("Queue.subtract")
    assert not exists("Queue(colour)")
    assert not exists("JobOptions.colour")
    assert not exists("Worker:exploded")
    assert not exists("QueueEvents:exploded")
    words = words_of("tests/test_bullmq_table.py::test_the_checks_see_a_lie")
    assert "words_of" in words.names
    assert "move_to_completed" not in words.members
    with pytest.raises(LookupError):
        words_of("tests/test_queue.py::test_that_nobody_wrote")
    assert "test_the_checks_see_a_lie" in names_of_tests("tests/test_bullmq_table.py")


def exists(name: str) -> bool:
    kind, colon, word = name.partition(":")
    if colon:
        return word in {"Worker": get_args(WorkerEvent), "State": get_args(toril.State)}.get(
            kind, _queue_events()
        )
    path, _, parameter = name.rstrip(")").partition("(")
    home, _, member = path.partition(".")
    of: Any = getattr(toril, home, None) or getattr(toril.telemetry, home, None)
    if of is None:
        return False
    if member:
        annotations = {name for parent in of.__mro__ for name in vars(parent).get("__annotations__", {})}
        if not hasattr(of, member) and member not in annotations | _assigned(of):
            return False
    called = getattr(of, member, of) if member else of
    return not parameter or parameter in inspect.signature(called).parameters


def _assigned(of: type) -> set[str]:
    """Attributes that `__init__` sets, which have no trace in the class."""
    init = vars(of).get("__init__")
    return (
        set(re.findall(r"self\.(\w+)(?:: [^=]+)? =", inspect.getsource(init)))
        if inspect.isfunction(init)
        else set()
    )


def _queue_events() -> set[str]:
    return set(load(DOCS / "generate.py").fields_of_events())


def word_of(name: str) -> tuple[str, bool]:
    """The word that a test has to mention, and whether it has to be asked of something: `x.word`."""
    _, colon, word = name.partition(":")
    if colon:
        return word, False
    path, _, parameter = name.rstrip(")").partition("(")
    home, _, member = path.partition(".")
    if parameter or not member:
        return parameter or home, False
    # Options are passed by keyword or in a dict; members of results and objects are read.
    is_option = home in {"JobOptions", "Deduplication", "KeepJobs", "Parent", "FlowJob", "NewJob", "DependencyCounts",
        "JobScheduler",
                         "Fixed", "Exponential", "Custom"}  # fmt: skip
    return (home, False) if member in POSITIONAL.get(home, ()) else (member, not is_option)


POSITIONAL = {
    "NewJob": ("name", "data", "options"),
    "FlowJob": ("name", "queue", "data"),
    "Deduplication": ("id",),
    "DependencyCounts": ("failed", "ignored", "processed", "unprocessed"),
    "Parent": ("id", "queue"),
    "Fixed": ("delay",),
    "Custom": ("type",),
}
"""Fields that are given without their names; a test that makes such an object gives them."""
