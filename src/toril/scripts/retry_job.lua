-- retry_job: active -> waiting or prioritized
-- A failed attempt with attempts left and no backoff: the job runs again at once.
--
--   KEYS[1]  wait         list    job ids, the next to run at the right
--   KEYS[2]  active       list    job ids, the newest at the left
--   KEYS[3]  prioritized  zset    job id -> priority and sequence
--   KEYS[4]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[5]  stalled      set     ids that the next stalled check looks at
--   KEYS[6]  pc           string  sequence of equal priorities
--   KEYS[7]  marker       zset    wakes blocked workers
--   KEYS[8]  meta         hash    settings of the queue
--   KEYS[9]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms       int     what time it is
--   ARGV[3]  job_id       string
--   ARGV[4]  token        string  proof of the claim
--   ARGV[5]  lifo         string  "1": the next to run
--   ARGV[6]  failed_reason  string  raw text
--   ARGV[7]  stacktrace   string  JSON
--   returns  0 moved | ERR_JOB_NOT_FOUND | ERR_LOCK_NOT_FOUND | ERR_LOCK_MISMATCH | ERR_JOB_NOT_IN_STATE
--   events   waiting      jobId, prev

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/release_lock"
--- @include "includes/promote_due"
--- @include "includes/push_back"
--- @include "includes/count_attempt"

local keys = {
  wait = KEYS[1], active = KEYS[2], prioritized = KEYS[3], delayed = KEYS[4], stalled = KEYS[5],
  pc = KEYS[6], marker = KEYS[7], meta = KEYS[8], events = KEYS[9],
}
local base, now_ms, job_id, token, lifo = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local failed_reason, stacktrace = ARGV[6], ARGV[7]
local job_key = base .. job_id

local meta = redis.call('HMGET', keys.meta, 'paused', 'concurrency', 'opts.maxLenEvents')
promote_due(keys, base, now_ms, is_open(keys.active, meta[1], meta[2]))
if redis.call('EXISTS', job_key) == 0 then
  return ERR_JOB_NOT_FOUND
end
local code = release_lock(job_key, keys.stalled, job_id, token)
if code < 0 then
  return code
end
redis.call('HSET', job_key, 'failedReason', failed_reason, 'stacktrace', stacktrace)
if redis.call('LREM', keys.active, -1, job_id) == 0 then
  return ERR_JOB_NOT_IN_STATE
end
local priority = tonumber(redis.call('HGET', job_key, 'priority') or 0) or 0
push_back(keys, job_id, priority, lifo == '1' and 'RPUSH' or 'LPUSH')
count_attempt(job_key)
redis.call('XADD', keys.events, 'MAXLEN', '~', max_events(keys.meta, meta[3]), '*', 'event', 'waiting',
  'jobId', job_id, 'prev', 'active')
return 0
