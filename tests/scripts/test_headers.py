"""The head of each Lua file says what it takes, answers and tells. Here it is held to it."""

from __future__ import annotations

import asyncio
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from toril.errors import JobNotFoundError, TransitionError, refusal
from toril.keys import QueueKeys
from toril.scripts import Fetch, FinishedJob, NewRecord, NextRun, Scripts, Start
from toril.scripts.loader import load

HOME = Path(str(resources.files("toril.scripts")))
SCRIPTS = sorted(path.stem for path in HOME.glob("*.lua"))
INCLUDES = sorted(path.stem for path in (HOME / "includes").glob("*.lua"))

FETCH = Fetch(1, "token", 30_000, "name", (10, 1000))
RUN = NextRun(1, '{"attempts":0}')
CALLS: dict[str, Any] = {
    "add_job": lambda scripts: scripts.add_job([NewRecord("own", "name", "{}", "{}", "1")]),
    "add_log": lambda scripts: scripts.add_log("1", "token", "row", 5),
    "adopt_jobs": lambda scripts: scripts.adopt_jobs("token"),
    "change_delay": lambda scripts: scripts.change_delay(1, "1", 5),
    "change_priority": lambda scripts: scripts.change_priority("1", 5),
    "clean": lambda scripts: scripts.clean("completed", 1, 10),
    "drain": lambda scripts: scripts.drain("wait", 0, 10),
    "get_counts": lambda scripts: scripts.get_counts(),
    "get_dependencies": lambda scripts: scripts.get_dependencies("1"),
    "get_rate_limit_ttl": lambda scripts: scripts.get_rate_limit_ttl(5),
    "hand_on_marker": lambda scripts: scripts.hand_on_marker(),
    "move_jobs_to_wait": lambda scripts: scripts.move_jobs_to_wait("failed", 10, 1),
    "move_to_waiting_children": lambda scripts: scripts.move_to_waiting_children(1, "1", "token"),
    "obliterate": lambda scripts: scripts.obliterate(10, force=False),
    "release_parents": lambda scripts: scripts.release_parents(1, ["bull:q:1"]),
    "remove_child_dependency": lambda scripts: scripts.remove_child_dependency("1", "bull:q:2"),
    "remove_deduplication_key": lambda scripts: scripts.remove_deduplication_key("d", "1"),
    "remove_job": lambda scripts: scripts.remove_job("1", with_children=True),
    "repair": lambda scripts: scripts.repair(1, "lock", "1"),
    "remove_orphaned_jobs": lambda scripts: scripts.remove_orphaned_jobs(["1"]),
    "remove_unprocessed_children": lambda scripts: scripts.remove_unprocessed_children("1"),
    "reclaim_locks": lambda scripts: scripts.reclaim_locks(30_000, [Start("1", "token", "1", "5")]),
    "extend_locks": lambda scripts: scripts.extend_locks(30_000, [("1", "token")]),
    "find_idle_job_schedulers": lambda scripts: scripts.find_idle_job_schedulers(0, 100),
    "remove_job_scheduler": lambda scripts: scripts.remove_job_scheduler("s"),
    "update_job_scheduler": lambda scripts: scripts.update_job_scheduler(
        1, "s", RUN, producer_id="repeat:s:1"
    ),
    "upsert_job_scheduler": lambda scripts: scripts.upsert_job_scheduler(
        1, "s", RUN, "name", "{}", ["name", "name"], 1000, 0
    ),
    "get_state": lambda scripts: scripts.get_state("1"),
    "move_stalled_jobs_to_wait": lambda scripts: scripts.move_stalled_jobs_to_wait(1, 1, 30_000),
    "move_to_active": lambda scripts: scripts.move_to_active(1, FETCH),
    "move_to_delayed": lambda scripts: scripts.move_to_delayed(1, "1", "token", 5, counts=True),
    "move_to_finished": lambda scripts: scripts.move_to_finished(
        1, [FinishedJob("1", "token", "completed", "null")], FETCH
    ),
    "move_to_wait": lambda scripts: scripts.move_to_wait("1", "token"),
    "pause": lambda scripts: scripts.pause("pause"),
    "promote": lambda scripts: scripts.promote("1"),
    "read_together": lambda scripts: scripts.read_together([("TYPE", "bull:q:1")]),
    "reprocess_job": lambda scripts: scripts.reprocess_job("1", "failed"),
    "retry_job": lambda scripts: scripts.retry_job(1, "1", "token", "reason", "[]"),
    "update_data": lambda scripts: scripts.update_data("1", "token", "{}"),
    "update_progress": lambda scripts: scripts.update_progress("1", "token", "1"),
}
"""A call of each script. Whoever adds a script adds it here."""


class Recorder:
    """Stands where the connection stands, and looks at what would be sent."""

    def __init__(self) -> None:
        self.sent: tuple[Any, ...] = ()

    async def execute(self, *args: Any) -> Any:
        self.sent = args
        raise ConnectionAbortedError


def sent_by(name: str) -> tuple[list[str], list[Any]]:
    """The keys, without the queue's base, and the arguments that a call of this script sends."""
    recorder = Recorder()
    scripts = Scripts(QueueKeys("bull", "q"), recorder)
    with pytest.raises(ConnectionAbortedError):
        asyncio.run(CALLS[name](scripts))
    command, sha, count, *rest = recorder.sent
    assert (command, sha) == ("EVALSHA", load(name).sha)
    return [str(key).removeprefix("bull:q:") for key in rest[:count]], rest[count:]


def source(name: str) -> str:
    return (HOME / f"{name}.lua").read_text()


def header(text: str) -> str:
    return text.partition("\n\n")[0]


def listed(name: str, kind: str) -> list[tuple[int, str, str]]:
    """Lines of the header about KEYS or ARGV: (number, name, type)."""
    return [
        (int(number), label, form)
        for number, label, form in re.findall(
            rf"^--   {kind}\[(\d+)\]\s+(\S+)\s+(\S+)", header(source(name)), re.MULTILINE
        )
    ]


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


def test_every_script_is_called_here() -> None:
    """The calls of this file are those of the scripts that there are."""
    assert sorted(CALLS) == SCRIPTS


def test_every_script_has_a_class_for_lost_answers() -> None:
    """The table in `docs/decisions/lost-answers.md` has each of them once."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "decisions" / "lost-answers.md").read_text()
    rows = [line.split("|")[3] for line in page.splitlines() if line.count("|") == 4]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_header_begins_with_the_scripts_name(name: str) -> None:
    """The first line names the file and the move."""
    assert source(name).startswith(f"-- {name}: ")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_keys_of_a_header_are_those_that_are_passed(name: str) -> None:
    """KEYS are numbered from 1 and stand for what `Scripts` sends, in order."""
    keys, _ = sent_by(name)
    said = listed(name, "KEYS")

    assert [number for number, _, _ in said] == list(range(1, len(keys) + 1))
    # A key that depends on the call is described by its part, not by its suffix.
    by_call = {"reprocess_job": "finished", "move_jobs_to_wait": "from"}
    expected = [by_call.get(name, key) if key == "failed" else key for key in keys]
    assert [label for _, label, _ in said] == expected


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_arguments_of_a_header_are_those_that_are_passed(name: str) -> None:
    """ARGV are numbered from 1, the last may be a list, and `Scripts` sends that many."""
    _, args = sent_by(name)
    said = listed(name, "ARGV")

    assert [number for number, _, _ in said] == list(range(1, len(said) + 1))
    assert all(form != "list" for _, _, form in said[:-1])
    if said and said[-1][2] == "list":
        listing = re.search(r"per job: (.*)", header(source(name)))
        assert listing is not None
        fields = len(re.sub(r"\([^)]*\)", "", listing[1]).split(","))
        assert len(args) == len(said) - 1 + fields
    else:
        assert len(args) == len(said)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_names_of_a_header_are_those_of_the_code(name: str) -> None:
    """The names that the code gives its keys and arguments are those of the header, in its order."""
    code = without_comments(source(name))

    for kind in ("KEYS", "ARGV"):
        for number, label, _ in listed(name, kind):
            uses = re.findall(rf"{kind}\[{number}\]", code)
            is_list = kind == "ARGV" and "per job" in header(source(name)) and not uses
            is_slot_only = "not read" in next(
                line for line in header(source(name)).splitlines() if f"{kind}[{number}]" in line
            )
            assert is_list or is_slot_only or len(uses) == 1, (
                f"{kind}[{number}] {label} is used {len(uses)} times"
            )
    highest = max((int(n) for n in re.findall(r"KEYS\[(\d+)\]", code)), default=0)
    assert highest <= len(listed(name, "KEYS"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_events_of_a_header_are_those_of_the_script(name: str) -> None:
    """Each event that the resolved script can append is listed, with its fields; and no other."""
    said: dict[str, set[frozenset[str]]] = {}
    for event, fields in re.findall(r"^--   events +(\S+) *(.*)$", header(source(name)), re.MULTILINE):
        # (…) explains a field.
        names = re.sub(r"\([^)]*\)", "", fields).replace(" ", "")
        said.setdefault(event, set()).add(frozenset(filter(None, names.split(","))))

    appended: dict[str, set[frozenset[str]]] = {}
    for parts in calls_of("XADD", without_comments(load(name).text)):
        at = parts.index("'event'")
        fields = frozenset(part.strip("'") for part in parts[at + 2 :: 2])
        appended.setdefault(parts[at + 1].strip("'"), set()).add(fields)

    assert said == appended


def calls_of(command: str, code: str) -> list[list[str]]:
    """The arguments of each redis.call of this command, as they are written."""
    found: list[list[str]] = []
    for match in re.finditer(rf"redis\.call\('{command}', ", code):
        parts, depth, at = [""], 0, match.end()
        while depth >= 0:
            character = code[at]
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(character, 0)
            if character == "," and depth == 0:
                parts.append("")
            elif depth >= 0:
                parts[-1] += character
            at += 1
        found.append([part.strip() for part in parts])
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_refusals_of_a_header_are_known(name: str) -> None:
    """What a script can refuse with is listed, is in error_codes.lua, and has a class of its own."""
    said = set(re.findall(r"ERR_[A-Z_]+", header(source(name))))
    returned = set(re.findall(r"return (ERR_[A-Z_]+)", without_comments(load(name).text)))

    assert said == returned
    codes = error_codes()
    assert said <= codes.keys()
    for label in said:
        assert type(refusal(codes[label], "1")) is not TransitionError


def error_codes() -> dict[str, int]:
    return {
        label: int(code)
        for label, code in re.findall(r"local (ERR_[A-Z_]+) = (-\d+)", source("includes/error_codes"))
    }


def test_refusals_have_one_meaning() -> None:
    """No two names share a number, and all are negative."""
    codes = error_codes()

    assert len(set(codes.values())) == len(codes)
    assert all(code < 0 for code in codes.values())
    assert isinstance(refusal(codes["ERR_JOB_NOT_FOUND"], "1"), JobNotFoundError)


@pytest.mark.parametrize("name", [name for name in INCLUDES if name != "error_codes"])
def test_an_include_is_a_local_function(name: str) -> None:
    """It is named for its file, takes all it needs as parameters, and leaves nothing else behind.

    A helper that only this function needs may stand before it.
    """
    text = source(f"includes/{name}")
    code = without_comments(text)

    names = re.findall(r"^local function (\w+)", code, re.MULTILINE)
    assert names[-1:] == [name]
    assert code.count("KEYS") == code.count("ARGV") == 0
    outside = re.sub(r"^local function \w+\(.*?\n(.*?)^end$", "", code, flags=re.DOTALL | re.MULTILINE)
    assert outside.strip() == ""
    assert re.search(r"^-- \w", text, re.MULTILINE), "says what it does"


@pytest.mark.parametrize("name", [*SCRIPTS, *(f"includes/{name}" for name in INCLUDES)])
def test_a_file_sets_no_global(name: str) -> None:
    """Every name that is assigned was declared local, or is a parameter, in the same file."""
    code = without_comments(source(name))
    declared = set(re.findall(r"\bfor (\w+)\s*=", code))
    for names in re.findall(r"\blocal (?!function)([\w, ]+?)(?: =|\n|$)", code) + re.findall(
        r"\bfor ([\w, ]+) in", code
    ):
        declared |= {part.strip() for part in names.split(",")}
    for parameters in re.findall(r"function \w+\(([^)]*)\)", code):
        declared |= {part.strip() for part in parameters.split(",")}
    declared |= set(re.findall(r"local function (\w+)", code))

    # Inside the braces of a table `name = value` is a field.
    statements = re.sub(r"\{[^{}]*\}", "", re.sub(r"\{[^{}]*\}", "", code))
    assigned: set[str] = set()
    for targets in re.findall(r"^ *([a-zA-Z_][\w, ]*?) = (?!=)", statements, re.MULTILINE):
        if not targets.startswith(("local ", "for ")):
            assigned |= {part.strip() for part in targets.split(",")}
    assert assigned - declared == set()
    assert not re.findall(r"^function", code, re.MULTILINE)


@pytest.mark.parametrize("name", [*SCRIPTS, *(f"includes/{name}" for name in INCLUDES)])
def test_a_script_does_not_ask_the_time(name: str) -> None:
    """The time is an argument; so is chance."""
    code = without_comments(source(name))

    assert not re.search(r"'TIME'|'time'|os\.|math\.random", code)


def test_every_include_is_used() -> None:
    """An include that nobody includes is dead."""
    used = {
        include
        for path in HOME.rglob("*.lua")
        for include in re.findall(r'@include "includes/(\w+)"', path.read_text())
    }

    assert used == set(INCLUDES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_calls_is_included(name: str) -> None:
    """Every helper that is called is included before its caller, and what is included is called."""
    text = load(name).text
    defined = re.findall(r"^local function (\w+)", text, re.MULTILINE)

    assert len(defined) == len(set(defined)), "each include stands in the script once"
    code = without_comments(text)
    for helper in set(defined) & set(INCLUDES):
        first_use = re.search(rf"(?<!function )\b{helper}\(", code)
        assert first_use is not None, f"{helper} is included and not used"
        assert code.index(f"function {helper}(") < first_use.start(), f"{helper} is used before it is there"
    for helper in INCLUDES:
        if helper not in defined and helper != "error_codes":
            assert not re.search(rf"\b{helper}\(", code), f"{helper} is used and not included"


def test_no_script_has_more_names_than_lua_allows() -> None:
    """Lua takes at most 200 locals a function."""
    for name in SCRIPTS:
        assert len(re.findall(r"^local ", load(name).text, re.MULTILINE)) < 150
