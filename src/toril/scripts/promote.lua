-- promote: delayed -> waiting or prioritized
-- Makes one delayed job runnable now. If it is delayed no longer, the caller lost a race and the job
-- has moved on: nothing is written.
--
--   KEYS[1]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[2]  wait         list    job ids, the next to run at the right
--   KEYS[3]  active       list    counted for the global concurrency
--   KEYS[4]  prioritized  zset    job id -> priority and sequence
--   KEYS[5]  pc           string  sequence of equal priorities
--   KEYS[6]  marker       zset    wakes blocked workers
--   KEYS[7]  meta         hash    settings of the queue
--   KEYS[8]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id       string
--   returns  0 moved | ERR_JOB_NOT_IN_STATE nothing changed
--   events   waiting      jobId, prev

--- @include "includes/error_codes"
--- @include "includes/push_back"

local keys = {
  delayed = KEYS[1], wait = KEYS[2], active = KEYS[3], prioritized = KEYS[4], pc = KEYS[5],
  marker = KEYS[6], meta = KEYS[7], events = KEYS[8],
}
local base, job_id = ARGV[1], ARGV[2]

-- ZREM is the claim: of two racing callers, exactly one removes the member.
if redis.call('ZREM', keys.delayed, job_id) == 0 then
  return ERR_JOB_NOT_IN_STATE
end
push_back(keys, job_id, tonumber(redis.call('HGET', base .. job_id, 'priority') or 0) or 0, 'LPUSH')
redis.call('XADD', keys.events, '*', 'event', 'waiting', 'jobId', job_id, 'prev', 'delayed')
redis.call('HSET', base .. job_id, 'delay', 0)
return 0
