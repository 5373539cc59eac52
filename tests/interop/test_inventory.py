"""The list of what the reference client offers is the reference client's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .node import why_no_node

ROOT = Path(__file__).resolve().parents[2]


def test_the_inventory_is_what_the_reference_client_has() -> None:
    """`node interop/inventory.js > interop/inventory.json` would change nothing."""
    reason = why_no_node()
    if reason is not None:
        pytest.skip(reason)
    command = ["node", str(ROOT / "interop" / "inventory.js")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)

    assert json.loads(told.stdout) == json.loads((ROOT / "interop" / "inventory.json").read_text())
