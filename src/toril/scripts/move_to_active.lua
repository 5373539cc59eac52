-- move_to_active: waiting, prioritized -> active
-- Fetches up to `want` jobs for a worker and locks them. Delayed jobs that are due join the line first.
--
--   KEYS[1]  wait         list    job ids, the next to run at the right
--   KEYS[2]  active       list    job ids, the newest at the left
--   KEYS[3]  prioritized  zset    job id -> priority and sequence
--   KEYS[4]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[5]  pc           string  sequence of equal priorities
--   KEYS[6]  marker       zset    wakes blocked workers
--   KEYS[7]  meta         hash    settings of the queue
--   KEYS[8]  limiter      string  starts in this rate-limit window
--   KEYS[9]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms       int     what time it is
--   ARGV[3]  want         int     how many jobs at most
--   ARGV[4]  token        string  the value of the locks; "0" takes none
--   ARGV[5]  lock_ms      int     how long the locks last
--   ARGV[6]  worker       string  name of the worker, or ""
--   ARGV[7]  limit_max    int     the worker's rate limit, or ""
--   ARGV[8]  limit_ms     int     its window, or ""
--   ARGV[9]  shares       flag    "1": take no more than half of what waits; others have been woken too
--   returns  {ttl_ms, due_ms, closed, id, record, id, record, …}; a record is as it was before the start
--   events   waiting      jobId, prev
--   events   active       jobId, prev

--- @include "includes/fetch_jobs"

local keys = {
  wait = KEYS[1], active = KEYS[2], prioritized = KEYS[3], delayed = KEYS[4], pc = KEYS[5],
  marker = KEYS[6], meta = KEYS[7], limiter = KEYS[8], events = KEYS[9],
}
local worker = { token = ARGV[4], lock_ms = ARGV[5], name = ARGV[6], limit_max = ARGV[7], limit_duration = ARGV[8], shares = ARGV[9] }
local fetched = fetch_jobs(keys, ARGV[1], ARGV[2], worker, tonumber(ARGV[3]))
return { fetched.ttl_ms, fetched.due_ms, fetched.closed and 1 or 0, unpack(fetched.jobs) }
