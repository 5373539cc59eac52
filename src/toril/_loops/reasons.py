"""What is written about an attempt that failed: why, in a line, and where, in a trace."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Sequence
from typing import Final

from ..codec import dumps
from ..errors import SandboxError

__all__ = ["kept_traces", "kind_and_text", "reason_of", "trace_of"]

_LONGEST_TRACE: Final = 16 * 1024
_LONGEST_REASON: Final = 4 * 1024


def reason_of(error: BaseException) -> str:
    """Return the message, as BullMQ stores it; with the type where the message alone would say little."""
    text = _text(error)
    if isinstance(error, KeyError) or not text:
        text = kind_and_text(error)
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"


def kind_and_text(error: BaseException) -> str:
    """Return the type and the message, or the type alone."""
    text = _text(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def trace_of(error: BaseException, own_files: Collection[str]) -> str:
    """Return the stack trace from where the processor begins, cut where it is very long.

    Args:
        error: What the processor raised; from a sandbox, what it raised there.
        own_files: Whose frames are left out: ours say nothing, and cost more to format than the rest.
    """
    for there in (error, error.__cause__):
        if isinstance(there, SandboxError) and there.stacktrace:
            return there.stacktrace
    begin = error.__traceback__
    while begin is not None and begin.tb_next is not None and begin.tb_frame.f_code.co_filename in own_files:
        begin = begin.tb_next
    trace = "".join(traceback.format_exception(type(error), error, begin))
    if len(trace) > _LONGEST_TRACE:
        # The end says what happened, the beginning where it began.
        trace = trace[: _LONGEST_TRACE // 4] + "\n…\n" + trace[-_LONGEST_TRACE * 3 // 4 :]
    return trace


def kept_traces(earlier: Sequence[str], trace: str, most: int | None) -> str:
    """Return a job's traces with a new one, as JSON: the last `most` of them, None for all."""
    traces = [*earlier, trace]
    if most is not None:
        traces = traces[-most:] if most else []
    # Half of a surrogate pair in one of them must not keep the job from ending.
    return dumps([text.encode("utf-8", "replace").decode() for text in traces], "stack trace")
