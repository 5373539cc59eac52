-- change_priority: waiting, prioritized -> waiting or prioritized
-- Gives a job another priority. In other states it only notes the number, for when the job waits again.
--
--   KEYS[1]  wait         list    job ids, the next to run at the right
--   KEYS[2]  active       list    counted for the global concurrency
--   KEYS[3]  prioritized  zset    job id -> priority and sequence
--   KEYS[4]  pc           string  sequence of equal priorities
--   KEYS[5]  marker       zset    wakes blocked workers
--   KEYS[6]  meta         hash    settings of the queue
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id       string
--   ARGV[3]  priority     int
--   ARGV[4]  lifo         string  "1": before all others of this priority
--   returns  0 done | ERR_JOB_NOT_FOUND

--- @include "includes/error_codes"
--- @include "includes/push_back"

local keys = {
  wait = KEYS[1], active = KEYS[2], prioritized = KEYS[3], pc = KEYS[4], marker = KEYS[5], meta = KEYS[6],
}
local base, job_id, priority, lifo = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'

if redis.call('EXISTS', base .. job_id) == 0 then
  return ERR_JOB_NOT_FOUND
end
if redis.call('ZREM', keys.prioritized, job_id) == 1 or redis.call('LREM', keys.wait, -1, job_id) > 0 then
  if priority > 0 and lifo then
    -- Sequence 0 stands before every other job of this priority.
    redis.call('ZADD', keys.prioritized, string.format('%.0f', priority * 4294967296), job_id)
  else
    push_back(keys, job_id, priority, lifo and 'RPUSH' or 'LPUSH')
  end
end
redis.call('HSET', base .. job_id, 'priority', priority)
return 0
