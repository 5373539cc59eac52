"""What tests mention, read from their source: so that a table can say which test proves what, and be checked.

A test mentions the names that stand in its body, its decorators, and the functions and constants of its own file that
it uses. A written program of `tests/differential`, `...::test[case]`, mentions what its moves call on toril's side,
and the options that stand in it.
"""

from __future__ import annotations

import ast
import functools
import gc
import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Words", "names_of_tests", "parsed", "words_of"]

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = "tests/differential/test_written_programs.py"


@dataclass
class Words:
    """What a piece of code mentions.

    Attributes:
        members: Names that are asked of something, `x.name`.
        names: Names that stand alone, and keywords of calls, `f(name=...)`.
        texts: Strings, whole.
    """

    members: set[str] = field(default_factory=set[str])
    names: set[str] = field(default_factory=set[str])
    texts: set[str] = field(default_factory=set[str])

    def read(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            match inner:
                case ast.Attribute(attr=name):
                    self.members.add(name)
                case ast.Name(id=name) | ast.arg(arg=name):
                    self.names.add(name)
                case ast.keyword(arg=str(name)):
                    self.names.add(name)
                case ast.Constant(value=str(text)):
                    self.texts.add(text)
                case _:
                    pass


Definition = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(path: Path) -> ast.Module:
    """The syntax of a Python file, read while nothing is collected.

    CPython 3.11 counts the depth of a parse once for the whole interpreter. A collection in its midst that prints a
    traceback parses again, and the outer parse fails with "AST constructor recursion depth mismatch"
    (python/cpython#106905).
    """
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


@functools.cache
def definitions(path: str) -> dict[str, ast.AST]:
    """What a file defines at its top, by name: functions, classes, constants."""
    found: dict[str, ast.AST] = {}
    for node in parsed(ROOT / path).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case _:
                pass
    return found


def names_of_tests(path: str) -> list[str]:
    """The names of a file's tests."""
    return [
        name
        for name, node in definitions(path).items()
        if isinstance(node, Definition) and name[:5] == "test_"
    ]


@functools.cache
def words_of(test: str) -> Words:
    """What a test, `path::name` or `path::name[case]`, mentions.

    Raises:
        LookupError: There is no such test.
    """
    path, _, name = test.partition("::")
    name, _, case = name.rstrip("]").partition("[")
    if not (ROOT / path).exists() or name not in names_of_tests(path):
        raise LookupError(f"there is no test {test}")
    words = Words()
    if case and path == PROGRAMS:
        _read_program(case, words)
    else:
        _follow(path, name, words)
    return words


def _follow(path: str, name: str, words: Words) -> None:
    known, seen, waiting = definitions(path), set[str](), [name]
    while waiting:
        current = waiting.pop()
        if current in seen or current not in known:
            continue
        seen.add(current)
        own = Words()
        own.read(known[current])
        words.members |= own.members
        words.names |= own.names
        words.texts |= own.texts
        waiting += own.names


def _read_program(case: str, words: Words) -> None:
    from tests.differential.operations import OPERATIONS
    from tests.differential.test_written_programs import PROGRAMS

    if case not in PROGRAMS:
        raise LookupError(f"there is no written program {case!r}")
    moves = definitions("tests/differential/operations.py")
    for move, arguments in PROGRAMS[case]:
        name = getattr(OPERATIONS[move].toril, "__name__", "") if move in OPERATIONS else ""
        if name in moves:
            words.read(moves[name])
        words.texts.update(snake(key) for key in re.findall(r"'(\w+)':", repr(arguments)))


def snake(name: str) -> str:
    """BullMQ's spelling in Python's."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
