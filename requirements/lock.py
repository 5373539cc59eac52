"""Pin every dependency, with hashes, in run.txt, dev.txt, bench*.txt and chaos.txt: `make lock`.

`run.txt` is what `make run` needs, `dev.txt` that and the tools, `bench*.txt` the libraries that `make bench` compares
with and `chaos.txt` the one that `make chaos` does, in environments of their own. The files hold for Python 3.11 and
later on all platforms, and name no registry, so that they install from whichever one a machine is set up for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
UV = Path(sys.executable).with_name("uv")
SOURCES = ["pyproject.toml", "pharmacy_coverage/pyproject.toml", "dev/requirements.in"]
OURS = ["--extra", "cli", "--extra", "embedded", "--extra", "otel", "--group", "build"]


def compile_lock(name: str, sources: list[str], *more: str) -> None:
    command = [str(UV), "pip", "compile", *sources, "--quiet", "--upgrade", "--generate-hashes"]
    command += ["--universal", "--python-version", "3.11", *more]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
    command += ["--no-emit-package", "toril", "--no-emit-package", "pharmacy-coverage"]
    # pip's settings on this machine are no business of the lock files.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    pins = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    if "://" in pins:
        raise SystemExit(f"{name}: a pin names an address; it must come from a registry")
    (HERE / name).write_text(f"# Made by `make lock` from {', '.join(sources)}.\n" + pins)


if __name__ == "__main__":
    compile_lock("run.txt", SOURCES, *OURS)
    compile_lock(
        "dev.txt", SOURCES, *OURS, "--extra", "test", "--group", "dev", "--constraint", "requirements/run.txt"
    )
    for name in ("bench", "bench-arq", "bench-saq", "chaos"):
        compile_lock(f"{name}.txt", [f"requirements/{name}.in"])
