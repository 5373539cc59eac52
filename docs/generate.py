"""Write the parts of the reference that the code says itself: `python docs/generate.py`.

A page in `docs/reference/` keeps its own words. What stands between `<!-- begin: NAME -->` and `<!-- end -->` comes
from here: docstrings, options with their defaults, events from the headers of the scripts, and the command line.
`tests/test_docs.py` notices when a page and the code differ.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import inspect
import json
import re
import sys
import tomllib
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer.main

import toril
from toril import JobOptions, Worker, errors
from toril.cli.app import app

__all__ = ["BLOCKS", "PAGES", "rewritten"]

PAGES = Path(__file__).parent / "reference"
SCRIPTS = Path(toril.__file__).parent / "scripts"


# --- docstrings -----------------------------------------------------------------------------------------------


def sections(docstring: str | None) -> tuple[str, dict[str, dict[str, str]]]:
    """Return a docstring's prose, and its sections: per section each name with its words."""
    prose: list[str] = []
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    name = ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        heading = re.fullmatch(r"(Args|Attributes|Raises|Returns):", line)
        if heading:
            current, name = found.setdefault(heading[1], {}), ""
        elif current is None or (line and not line.startswith(" ")):
            current = None
            prose.append(line)
        elif entry := re.match(r"    ([\w, *]+): (.*)", line):
            name = entry[1]
            current[name] = entry[2]
        elif line.strip():
            current[name] = f"{current.get(name, '')} {line.strip()}".strip()
    return "\n".join(prose).strip(), found


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`"


class _Bare(str):
    """An annotation that shows itself as it stands in the source."""

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, function: Callable[..., Any]) -> str:
    try:
        shown = inspect.signature(function)
    except (TypeError, ValueError):
        return name
    parameters = [
        parameter.replace(annotation=_bare(parameter.annotation))
        for parameter in shown.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    returns = shown.return_annotation
    if returns in (None, "None"):
        returns = inspect.Signature.empty
    text = str(shown.replace(parameters=parameters, return_annotation=_bare(returns)))
    return name + re.sub(r"<toril\.[^>]*>|<object object[^>]*>", "…", text)


def _bare(annotation: Any) -> Any:
    # A struct has looked up its own.
    if isinstance(annotation, type) and annotation.__module__.startswith("toril."):
        return _Bare(annotation.__name__)
    return _Bare(annotation) if isinstance(annotation, str) else annotation


# --- options --------------------------------------------------------------------------------------------------


def job_options() -> str:
    """Each job option: its type and its docstring, which stands below it in the source."""
    (definition,) = ast.parse(inspect.getsource(JobOptions)).body
    assert isinstance(definition, ast.ClassDef)
    rows: list[list[str]] = []
    for option, words in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(option, ast.AnnAssign) and isinstance(words, ast.Expr):
            assert isinstance(words.value, ast.Constant)
            rows.append(
                [
                    code(ast.unparse(option.target)),
                    code(ast.unparse(option.annotation)),
                    str(words.value.value),
                ]
            )
    return table(["option", "type", "what it does"], rows)


def parameters(of: type) -> str:
    """Each parameter of a class: its default and what its docstring says."""
    words = sections(of.__doc__)[1]
    said = words.get("Args") or words.get("Attributes") or {}
    rows: list[list[str]] = []
    for parameter in inspect.signature(of).parameters.values():
        default = "required" if parameter.default is parameter.empty else code(repr(parameter.default))
        rows.append([code(parameter.name), default, said.get(parameter.name, "")])
    return table(["option", "default", "what it does"], rows)


VALUES: tuple[type, ...] = (
    toril.Fixed,
    toril.Exponential,
    toril.Custom,
    toril.KeepJobs,
    toril.Deduplication,
    toril.Parent,
)


def values() -> str:
    """The small classes that options are made of."""
    parts: list[str] = []
    for of in (
        toril.Fixed,
        toril.Exponential,
        toril.Custom,
        toril.KeepJobs,
        toril.Deduplication,
        toril.Parent,
    ):
        parts.append(f"### {of.__name__}\n\n{sections(of.__doc__)[0]}\n\n{parameters(of)}")
    return "\n\n".join(parts)


# --- errors and events ----------------------------------------------------------------------------------------


def error_tree() -> str:
    """The drawing at the head of `errors.py`."""
    drawing = inspect.cleandoc(errors.__doc__ or "").split("::\n", 1)[1].split("\nMessages name", 1)[0]
    return f"```text\n{inspect.cleandoc(drawing)}\n```"


def worker_events() -> str:
    words = " ".join((Worker.on.__doc__ or "").split())
    arguments = dict(re.findall(r"(\w+)\(([^()]*)\)", words.split("Arguments by event:", 1)[1]))
    names = getattr(toril.worker.WorkerEvent, "__args__", ())
    return table(
        ["event", "the listener is called with"],
        (
            [code(name), ", ".join(map(code, arguments[name].split(", "))) if name in arguments else "–"]
            for name in names
        ),
    )


def fields_of_events() -> dict[str, dict[str, str]]:
    """Each event of a queue: its fields as the headers of the scripts say them, by their names."""
    return _written_events()[0]


def queue_events() -> str:
    """Each event: its fields and the scripts that write it, from the headers of the scripts."""
    fields, scripts = _written_events()
    rows = (
        [code(name), ", ".join(fields[name].values()) or "–", ", ".join(map(code, scripts[name]))]
        for name in sorted(fields)
    )
    return table(["event", "fields", "written by"], rows)


def _written_events() -> tuple[dict[str, dict[str, str]], dict[str, dict[str, None]]]:
    fields: dict[str, dict[str, str]] = defaultdict(dict)
    scripts: dict[str, dict[str, None]] = defaultdict(dict)
    for script in sorted(SCRIPTS.glob("*.lua")):
        for name, listed in re.findall(
            r"^-- +events +([\w-]+)(?: +(.+))?$", script.read_text(), re.MULTILINE
        ):
            known = fields[name]
            for field in re.split(r", (?![^(]*\))", listed) if listed else ():
                known.setdefault(field.split(" ")[0], field)
            scripts[name][script.stem] = None
    return fields, scripts


# --- the command line -----------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """All commands by their full names, as click sees them."""
    found: dict[str, Any] = {}

    def collect(path: str, command: Any) -> None:
        # Typer may have a click of its own, so what it is cannot be asked of the other one.
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                collect(f"{path} {name}", child)
        else:
            found[path] = command

    collect("toril", typer.main.get_command(app))
    return found


def command_line() -> str:
    parts: list[str] = []
    for path, command in commands().items():
        usage = [path]
        rows: list[list[str]] = []
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                metavar = str(parameter.metavar or parameter.name.upper())
                usage.append(metavar if parameter.nargs == 1 or metavar.endswith("...") else f"{metavar}...")
                continue
            variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
            rows.append(
                [
                    ", ".join(map(code, parameter.opts)),
                    ", ".join(map(code, variables)) or "–",
                    parameter.help or "",
                ]
            )
        parts.append(
            f"### {code(path)}\n\n```text\n{' '.join(usage)}\n```\n\n{inspect.cleandoc(command.help or '')}"
        )
        parts.append(table(["option", "variable", "what it does"], rows))
    return "\n\n".join(parts)


# --- everything that is exported ------------------------------------------------------------------------------

GROUPS: dict[str, tuple[str, ...]] = {
    "Queues and jobs": ("Queue", "Job", "NewJob", "JobLogs", "Metrics", "find_queues", "State"),
    "Workers and processors": ("Worker", "Processor", "STOP"),
    "Events": ("QueueEvents", "Event"),
    "Flows": ("FlowProducer", "FlowJob", "Flow", "Dependencies", "DependencyCounts"),
    "Job schedulers": ("JobScheduler",),
    "Without asyncio": ("SyncQueue", "SyncJob"),
    "Connections": ("Connection",),
}


def everything() -> str:
    """Each public name with its members. Options and errors have pages of their own."""
    exported = [name for name in toril.__all__ if not _has_a_page(getattr(toril, name))]
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "Everything else": tuple(name for name in exported if name not in grouped)}
    parts: list[str] = []
    for title, names in groups.items():
        if not names:
            continue
        parts.append(f"## {title}")
        parts += [described(name, getattr(toril, name)) for name in names]
    return "\n\n".join(parts)


def _has_a_page(thing: object) -> bool:
    is_error = isinstance(thing, type) and issubclass(thing, BaseException)
    return is_error or any(thing is of for of in (*VALUES, JobOptions))


def described(name: str, thing: object) -> str:
    if typing.get_origin(thing) is typing.Literal:
        return f"### {name}\n\nOne of {', '.join(code(repr(value)) for value in typing.get_args(thing))}."
    if not callable(thing):
        return f"### {name}\n\n{code(repr(thing))}"
    parts = [f"### {name}", f"```text\n{signature(name, thing)}\n```", *_words(thing.__doc__)]
    if isinstance(thing, type):
        members = [_member(thing, member) for member in _members(thing)]
        parts += ["Members:", *members] if members else []
    return "\n\n".join(parts)


def _members(of: type) -> list[str]:
    """Public members in the order of the source, those that it inherits last."""
    names: dict[str, None] = {}
    for parent in of.__mro__:
        if parent.__module__.startswith("toril"):
            names.update(dict.fromkeys(vars(parent)))
    return [
        name for name in names if not name.startswith("_") and _is_member(inspect.getattr_static(of, name))
    ]


def _is_member(value: Any) -> bool:
    kinds = (property, functools.cached_property, classmethod, staticmethod, types.FunctionType)
    return isinstance(value, kinds) and bool(value.__doc__)


def _member(of: type, name: str) -> str:
    value: Any = inspect.getattr_static(of, name)
    function: Any = getattr(value, "__func__", value)
    if inspect.isfunction(function):
        awaited = "await " if inspect.iscoroutinefunction(function) else ""
        title = awaited + signature(name, function)
    else:
        title = name
    prose, found = sections(function.__doc__)
    lines = [f"- **{code(title)}**", f"  {_indented(prose)}"]
    for section, mark in (("Args", ""), ("Returns", "Returns: "), ("Raises", "Raises ")):
        for entry, words in found.get(section, {}).items():
            lines.append(
                f"    - {mark}{f'{code(entry)}: ' if entry else ''}{words}".replace(
                    "Raises As ", "Raises as "
                )
            )
    return "\n".join(lines)


def _indented(prose: str) -> str:
    return "\n\n  ".join(" ".join(paragraph.split("\n")) for paragraph in prose.split("\n\n"))


def _words(docstring: str | None) -> list[str]:
    prose, found = sections(docstring)
    parts = [prose]
    for section in ("Args", "Attributes", "Returns", "Raises"):
        entries = [
            f"- {f'{code(name)}: ' if name else ''}{words}" for name, words in found.get(section, {}).items()
        ]
        if entries:
            parts.append(f"{section}:\n\n" + "\n".join(entries))
    return parts


# --- BullMQ's names -------------------------------------------------------------------------------------------

INTEROP = Path(__file__).parents[1] / "interop"
Name = tuple[str, str]
"""A section as `class Queue` or `options KeepJobs`, and a member of it."""


@functools.cache
def inventory() -> dict[str, Any]:
    """What the reference client has, by name; `interop/inventory.js` writes it."""
    return json.loads((INTEROP / "inventory.json").read_text())


@functools.cache
def _said() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    said = tomllib.loads((INTEROP / "bullmq.toml").read_text())
    return said, said.pop("groups")


def bullmq_names() -> list[Name]:
    """Every name of the reference client."""
    names: list[Name] = []
    for name, about in inventory()["classes"].items():
        names += [(f"class {name}", member) for member in (name, *about["public"])]
    for kind in ("options", "events", "words", "values"):
        for name, members in inventory()[kind].items():
            names += [
                (f"{kind} {name}", member) for member in members or ([name] if kind == "values" else [])
            ]
    return names + [("functions", name) for name in inventory()["functions"]]


def bullmq_entries() -> dict[Name, Any]:
    """What each name is here: a list of a name and its tests, or why it is not there; None where nobody has said."""
    said, groups = _said()
    entries = {
        (section, member): entry for section, members in said.items() for member, entry in members.items()
    }
    for name in bullmq_names():
        if name not in entries:
            entries[name] = next((groups[pattern] for pattern in groups if _is_in(name, pattern)), None)
    return entries


def unused_groups() -> list[str]:
    said, groups = _said()
    left = [name for name in bullmq_names() if name[1] not in said.get(name[0], {})]
    return [pattern for pattern in groups if not any(_is_in(name, pattern) for name in left)]


def _is_in(name: Name, pattern: str) -> bool:
    return fnmatch.fnmatchcase(" ".join(name), pattern)


TITLES = {
    "class": "Class `{}`",
    "options": "Options: `{}`",
    "events": "Events: `{}`",
    "words": "Words: `{}`",
    "values": "Values: `{}`",
    "functions": "Functions",
}


def bullmq() -> str:
    """Each name of BullMQ: its name here and the tests that prove it, or why it is not there."""
    entries, (said, groups) = bullmq_entries(), _said()
    here = sum(isinstance(entry, list) for entry in entries.values())
    parts = [
        f"BullMQ {inventory()['version']} has {len(entries)} public names. {here} of them are here; for the others "
        f"the reason is given, for most of them at the [end of the page](#groups)."
    ]
    for section, members in said.items():
        kind, _, name = section.partition(" ")
        lines = [[code(member), *_shown(entry)] for member, entry in members.items()]
        parts.append(f"## {TITLES[kind].format(name)}\n\n{table(['BullMQ', 'toril', 'proof'], lines)}")
    parts.append("## Groups\n\nNames that have no line of their own above.")
    rows: list[list[str]] = []
    for pattern, reason in groups.items():
        meant = [name for name in entries if name[1] not in said.get(name[0], {}) and _is_in(name, pattern)]
        rows.append([code(pattern.removesuffix(" *")), str(len(meant)), reason])
    return "\n\n".join([*parts, table(["names", "how many", "why they are not there"], rows)])


def _shown(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return ["–", entry]
    name, *proofs = entry
    home, colon, word = name.partition(":")
    told = (
        code(name)
        if not colon
        else f"the state {code(word)}"
        if home == "State"
        else f"{code(home)}: {code(word)}"
    )
    return [told, "<br>".join(map(_link, proofs))]


def _link(proof: str) -> str:
    path, _, test = proof.partition("::")
    return f"[{test.replace('[', ': ').rstrip(']')}](../../tests/{path}.py)"


# --- pages ----------------------------------------------------------------------------------------------------

BLOCKS: dict[str, Callable[[], str]] = {
    "job options": job_options,
    "values": values,
    "worker options": lambda: parameters(Worker),
    "errors": error_tree,
    "worker events": worker_events,
    "queue events": queue_events,
    "command line": command_line,
    "everything": everything,
    "bullmq": bullmq,
}


def rewritten(page: str) -> str:
    """Return a page with its blocks as the code has them now."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- begin: {match[1]} -->\n\n{BLOCKS[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- begin: ([\w ]+) -->.*?<!-- end -->", block, page, flags=re.DOTALL)


def main() -> None:
    for page in sorted(PAGES.glob("*.md")):
        before = page.read_text()
        after = rewritten(before)
        if after != before:
            page.write_text(after)
            print(f"{page.name}: written", file=sys.stderr)


if __name__ == "__main__":
    main()
