"""The floor: the bare loop, with nothing but what BullMQ's layout wants of a job.

Nothing is looked at before it is written: no setting, no pause, no limit, no lock, no parent, no state. As a queue it
would be worthless. As a bound it says what no queue on this layout passes that ends its jobs in scripts: of a job that
is added, one record, two events and a place in a list; of one that runs, what a worker needs of its record, which is
written twice, two events, a lock and three lists.

A plain job that is added leaves nothing to decide once it has an id, so adds are plain commands in a `MULTI`, with ids
taken beforehand; that costs the server less than a script. Who ends a job has to decide whether it is theirs, and who
takes one learns which only then: there a script writes.

How it waits is part of the bound:

- *Adds one by one* wait awake: who sleeps has to be woken, which takes longer than the server's work. The stamped adds
  of an idle queue sleep: three processes share two cores there, and who stays awake takes the worker's.
- *Adds that are awaited at the same time* are an add in bulk: no client can do better than to know all of them at once.
- *A list* leaves as transactions of 50 on twenty sockets. The server reads some kilobytes of a socket at a time, so
  over many of them an adder gets ahead of the worker, who then has the server for itself. In the round trip that was
  quicker than lists of 100 or 500 on fewer sockets; in bulk they are alike.
- *An idle worker* sleeps in `BZPOPMIN`, with the fetch sent behind it. The server carries that out as soon as the sleep
  is over, so what wakes the worker brings the job along, and no second round trip is needed.
- *A busy worker* sleeps in `recv`, as the bare loop does: staying awake halved the drain.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections import deque
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, Final

from benchmarks.contestants import bare
from benchmarks.contestants.harness import QUEUE, main
from benchmarks.tally import Tally
from toril.keys import QueueKeys
from toril.options import PreparedOptions

KEYS: Final = QueueKeys("bull", QUEUE)
WAIT, MARKER, EVENTS = KEYS.key("wait"), KEYS.key("marker"), KEYS.key("events")
PLAIN: Final = '{"t":0}'
LANES: Final = 20
"""So many sockets has a producer."""
IDS: Final = 10_000_000
"""So many ids are taken when it begins: more than a run adds."""
OPTS: Final = PreparedOptions().stored
AWAKE_SECONDS: Final = 0.001
"""So long is waited awake at most: then something else keeps the server."""

# They take what `move_to_finished` takes, and answer likewise, with records of a few fields.
_TAKE: Final = """
local ids, jobs = call('RPOP', KEYS[1], ARGV[3]) or {}, {}
for i, id in ipairs(ids) do
  local key = base .. id
  jobs[2 * i - 1], jobs[2 * i] = id, call('HMGET', key, 'data', 'name', 'opts', 'timestamp', 'atm', 'ats')
  call('SET', key .. ':lock', token, 'PX', lock_ms)
  call('XADD', events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
  call('HSET', key, 'processedOn', now_ms, 'ats', '1')
end
if #ids > 0 then
  call('LPUSH', KEYS[2], unpack(ids))
end
if #ids == tonumber(ARGV[3]) then
  call('ZADD', KEYS[9], 0, '0')
end
return { {}, 0, '0', 0, unpack(jobs) }
"""
# It has been sent long before it is carried out, so it asks what time it is.
FETCH: Final = f"""
local call, base, token, lock_ms, events = redis.call, ARGV[1], ARGV[4], ARGV[5], KEYS[12]
local now = call('TIME')
local now_ms = string.format('%d', now[1] * 1000 + now[2] / 1000)
{_TAKE}"""
# The jobs that have been active for longest are taken for those that end. Between two workers they may be each
# other's; there are as many all the same.
FINISH: Final = f"""
local call, base, now_ms, token, lock_ms, events = redis.call, ARGV[1], ARGV[2], ARGV[4], ARGV[5], KEYS[12]
local count, locks, ended = 0, {{}}, {{}}
for at = 11, #ARGV, 5 do
  local id, value = ARGV[at], ARGV[at + 3]
  local key = base .. id
  count = count + 1
  locks[count] = key .. ':lock'
  ended[2 * count - 1], ended[2 * count] = now_ms, id
  call('HSET', key, 'atm', '1', 'returnvalue', value, 'finishedOn', now_ms)
  call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', value, 'prev', 'active')
end
call('DEL', unpack(locks))
call('LTRIM', KEYS[2], 0, -count - 1)
call('ZADD', KEYS[5], unpack(ended))
call('XTRIM', events, 'MAXLEN', '~', 10000)
{_TAKE}"""


BEGIN: Final = bare.pack(("MULTI",))
END: Final = b"".join(
    (
        bare.pack(("ZADD", MARKER, "0", "0")),
        bare.pack(("XTRIM", EVENTS, "MAXLEN", "~", "10000")),
        bare.pack(("EXEC",)),
    )
)


class FloorWire(bare.Wire):
    """A socket that can be waited for without falling asleep."""

    def receive_awake(self) -> Any:
        until = time.perf_counter() + AWAKE_SECONDS
        while (answer := self._reader.gets()) is False:
            try:
                self._reader.feed(self._socket.recv(1 << 12, socket.MSG_DONTWAIT))
            except BlockingIOError:
                if time.perf_counter() > until:
                    return self.receive()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def receive_added(self, count: int, *, is_awake: bool = False) -> None:
        """Wait for what a transaction that adds so many jobs answers: each command's receipt, then all together."""
        receive = self.receive_awake if is_awake else self.receive
        for _ in range(3 * count + 5):
            receive()


class Floor(bare.Bare):
    missing: ClassVar = dict.fromkeys(
        ("paced", "sync", "size", "prioritized", "delayed", "flows", "retries"), "only plain jobs"
    )

    def open(self) -> None:
        self._lanes = [FloorWire(self.url) for _ in range(LANES)]
        last = self._lanes[0].ask("INCRBY", KEYS.key("id"), IDS)
        self._ids = map(str, range(last - IDS + 1, last + 1))

    def add(self, data: dict[str, Any], **options: Any) -> None:
        wire, stamp = self._lanes[0], data["t"]
        wire.write(self._transaction(1, f'{{"t":{stamp}}}'))
        wire.receive_added(1, is_awake=not stamp)

    def add_bulk(self, datas: list[dict[str, Any]], **options: Any) -> None:
        flying: deque[tuple[FloorWire, int]] = deque()
        for start in range(0, len(datas), bare.BATCH):
            if len(flying) == LANES:
                _await_oldest(flying)
            wire, count = self._lanes[start // bare.BATCH % LANES], min(bare.BATCH, len(datas) - start)
            wire.write(self._transaction(count, PLAIN))
            flying.append((wire, count))
        while flying:
            _await_oldest(flying)

    def _transaction(self, count: int, data: str) -> bytes:
        ids = list(islice(self._ids, count))
        jobs = (_job(len(id), data).replace(b"#" * len(id), id.encode()) for id in ids)
        return b"".join((BEGIN, *jobs, bare.pack(("LPUSH", WAIT, *ids)), END))

    def work(self, tally: Tally, concurrency: int, threads: int) -> None:
        wires = [bare.Wire(self.url) for _ in range(2)]
        _, template = bare.finish_template(f"{uuid.uuid4()}:1")
        finish = template.calling(wires[0].ask("SCRIPT", "LOAD", FINISH))
        fetch = bare.pack(tuple(template.calling(wires[0].ask("SCRIPT", "LOAD", FETCH)).of([])))
        sleep = bare.pack(("BZPOPMIN", MARKER, "0"))
        while True:
            wires[0].write(sleep + fetch)
            wires[0].receive()
            flying, resting = deque(wires[:1]), wires[1:]
            while flying:
                wire = flying.popleft()
                jobs = wire.receive()[4:]
                if not jobs:
                    resting.append(wire)
                    continue
                _run(tally, jobs[1::2])
                wire.write(bare.pack(tuple(finish.of(jobs[::2]))))
                flying.append(wire)
                # Where a fetch got all that it wanted, there are more.
                if len(jobs) == 2 * bare.BATCH and resting:
                    flying.append(resting.pop())
                    flying[-1].write(fetch)


@lru_cache(64)
def _job(digits: int, data: str) -> bytes:
    """The commands that write a job with an id of so many digits, for which `#` stands."""
    id = "#" * digits
    now_ms = str(int(time.time() * 1000))
    fields = ("name", "noop", "data", data, "opts", OPTS, "timestamp", now_ms, "delay", "0", "priority", "0")
    return b"".join(
        (
            bare.pack(("HSET", KEYS.job(id), *fields)),
            bare.pack(("XADD", EVENTS, "*", "event", "added", "jobId", id, "name", "noop")),
            bare.pack(("XADD", EVENTS, "*", "event", "waiting", "jobId", id)),
        )
    )


def _await_oldest(flying: deque[tuple[FloorWire, int]]) -> None:
    wire, count = flying.popleft()
    wire.receive_added(count)


def _run(tally: Tally, records: list[list[str]]) -> None:
    if records[0][0] == PLAIN:
        tally.hits(len(records))
        return
    for data, *_ in records:
        tally.hit(int(data[5:-1]))


if __name__ == "__main__":
    main(Floor)
