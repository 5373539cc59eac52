"""The work of the load in a process of its own, and the ways in which such a process ends badly.

What runs here is known to the ledger by the process that runs it, not by its worker: it is what dies.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import signal
import time
from typing import Any, Final

from toril import SyncJob

from .ledger import Ledger

__all__ = ["LEDGER", "work"]

LEDGER: Final = "CHAOS_LEDGER"
"""The variable of the environment that says where the ledger is."""
_ROOM: Final = 64 * 1024 * 1024
"""Bytes that a process may still ask for when its memory is limited."""


@functools.cache
def _book() -> Ledger:
    return Ledger(os.environ[LEDGER], "child")


def work(job: SyncJob[Any]) -> str:
    """Do one job, or end as it asks for."""
    data: dict[str, Any] = job.data or {}
    run = job.job.attempts_started
    facts: dict[str, Any] = {"id": job.id, "run": run, "pid": os.getpid()}
    _book().write("start", **facts)
    _harm(data.get("harm"))
    time.sleep(data.get("ms", 0) / 1000)
    if job.job.attempts_made < data.get("fails", 0):
        _book().write("end", **facts, failed=True)
        raise ValueError("this attempt is to fail")
    _book().write("end", **facts)
    return f"{os.getpid()}:{run}"


def _harm(how: str | None) -> None:
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "killed":
            # As the system does where memory has run out.
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            _run_out_of_memory()
        case "deaf":
            # Holds the GIL, and does not listen: only SIGKILL ends it.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ctypes.PyDLL(None).sleep(600)
        case _:
            pass


def _run_out_of_memory() -> None:
    """Meet the limit of the process, `ulimit -v`: C's allocator has none left, and whoever does not look crashes."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, resource.RLIM_INFINITY))
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    ctypes.memset(libc.malloc(ctypes.c_size_t(4 * _ROOM)), 1, 4 * _ROOM)
