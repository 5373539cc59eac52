-- reprocess_job: completed or failed -> waiting or prioritized
-- Runs a finished job again. Without a reset of its attempts, a job that has used them up gets one more.
--
--   KEYS[1]  finished     zset    the state that the job is in: job id -> when it ended, ms
--   KEYS[2]  wait         list    job ids, the next to run at the right
--   KEYS[3]  active       list    counted for the global concurrency
--   KEYS[4]  prioritized  zset    job id -> priority and sequence
--   KEYS[5]  pc           string  sequence of equal priorities
--   KEYS[6]  marker       zset    wakes blocked workers
--   KEYS[7]  meta         hash    settings of the queue
--   KEYS[8]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id       string
--   ARGV[3]  state        string  "completed" or "failed"
--   ARGV[4]  lifo         string  "1": the next to run
--   ARGV[5]  reset_made   string  "1": forget the attempts made
--   ARGV[6]  reset_started  string  "1": forget the attempts started
--   returns  0 moved | ERR_JOB_NOT_FOUND | ERR_JOB_NOT_IN_STATE
--   events   waiting      jobId, prev

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/push_back"
--- @include "includes/reattach"

local keys = {
  finished = KEYS[1], wait = KEYS[2], active = KEYS[3], prioritized = KEYS[4], pc = KEYS[5],
  marker = KEYS[6], meta = KEYS[7], events = KEYS[8],
}
local base, job_id, state, lifo, reset_made, reset_started = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local job_key = base .. job_id

if redis.call('EXISTS', job_key) == 0 then
  return ERR_JOB_NOT_FOUND
end
if redis.call('ZREM', keys.finished, job_id) == 0 then
  return ERR_JOB_NOT_IN_STATE
end
redis.call('HDEL', job_key, 'finishedOn', 'processedOn', state == 'failed' and 'failedReason' or 'returnvalue')
if reset_made == '1' then
  redis.call('HDEL', job_key, 'atm')
end
if reset_started == '1' then
  redis.call('HDEL', job_key, 'ats')
end
local priority = tonumber(redis.call('HGET', job_key, 'priority') or 0) or 0
push_back(keys, job_id, priority, lifo == '1' and 'RPUSH' or 'LPUSH')
reattach(job_key, state)
local max_len = max_events(keys.meta, redis.call('HGET', keys.meta, 'opts.maxLenEvents'))
redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'waiting', 'jobId', job_id, 'prev', state)
return 0
