"""Identifiers: a prefix that says what it is, then a ULID, which sorts by time and cannot be counted through.

They hold no colon, so that they may stand inside a job id.
"""

import re

from ulid import ULID

__all__ = ["ID_PATTERN", "is_id", "new_id"]

ID_PATTERN = r"^[a-z]{3}_[0-9A-Za-z]{4,26}$"


def new_id(prefix: str) -> str:
    """A fresh id such as `shf_01JD…`; `prefix` is three letters."""
    return f"{prefix}_{ULID()}"


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of an id of that kind."""
    return text.startswith(f"{prefix}_") and re.fullmatch(ID_PATTERN, text) is not None
