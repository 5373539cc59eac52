"""What must be true of a queue's keys, whoever wrote them, and a look at whether it is.

`violations` is a pure function over a dump of keys; tests run it after each step. `check` reads a queue in use, in
bounded steps and without writing, and reports only what a second look at one moment confirms. The invariants:

| | |
|---|---|
| I2 | a job is in one state, and there once |
| I3 | no record without a state, no state without a record, no keys that belong to nobody |
| I4 | a job ends once; `finishedOn` stands in ended jobs and nowhere else |
| I7 | the counters of starts, attempts and stalls are what happened |
| I8 | the events, one after another, lead to the state that the job is in |
| I9 | a lock belongs to an active job and runs out; a queue at rest has neither |
| I11 | a job waits for children exactly as long as there are some to wait for |
| I12 | a job scheduler has one pending job |
| I21 | a deduplication id is owned by a job that has not ended, or runs out |

`plan` says what `repair` would do about a violation; whatever would need a guess is left to people.

What only a ledger outside Redis can tell (that no job was lost, who ran when) is left to tests and to `chaos`.
"""

from __future__ import annotations

from .histories import Replay
from .mending import plan, repair
from .reading import check
from .rules import Violation, violations
from .view import Entry, Keyspace

__all__ = ["Entry", "Keyspace", "Replay", "Violation", "check", "plan", "repair", "violations"]
