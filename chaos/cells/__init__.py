"""The cells of the fault matrix: each is one function that does one kind of harm to a running load.

A module for each kind of harm; `CELLS` has all of them by their keys, in the matrix's order. A key is the row's number,
with a letter where a row has several settings.
"""

from __future__ import annotations

# They enter themselves.
from . import backlogs as backlogs
from . import clocks as clocks
from . import crowds as crowds
from . import loads as loads
from . import namespaces as namespaces
from . import network as network
from . import processes as processes
from . import sandboxes as sandboxes
from . import server as server
from . import topologies as topologies
from . import upgrades as upgrades
from ._registry import ABSENT, CELLS, Cell

__all__ = ["ABSENT", "CELLS", "SMOKE", "Cell"]

SMOKE = ("1", "3", "6", "8", "11", "12", "14", "22", "24", "31", "34", "42")
"""The cells that `make test` plays, small."""
