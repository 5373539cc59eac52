"""How an error shows a value that it refuses: briefly, and whatever the value is."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["shown"]

_MOST: Final = 60
_LARGEST: Final = 10**20


def shown(value: Any) -> str:
    """Return a short text for a value: itself where it is short and plain, else what kind of thing it is."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        # Python refuses to write out very large ones.
        return str(int(value)) if -_LARGEST < value < _LARGEST else "a number of more than 20 digits"
    if type(value) is str:
        return repr(value) if len(value) <= _MOST else f"{value[:_MOST]!r}…"
    # Its own words may be long, private, or an exception.
    return f"an object of type {type(value).__name__}"
