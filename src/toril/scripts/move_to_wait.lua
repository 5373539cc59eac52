-- move_to_wait: active -> waiting or prioritized
-- Gives a job back as if it had not been taken: next to run, no attempt counted.
--
--   KEYS[1]  wait         list    job ids, the next to run at the right
--   KEYS[2]  active       list    job ids, the newest at the left
--   KEYS[3]  prioritized  zset    job id -> priority and sequence
--   KEYS[4]  stalled      set     ids that the next stalled check looks at
--   KEYS[5]  marker       zset    wakes blocked workers
--   KEYS[6]  meta         hash    settings of the queue
--   KEYS[7]  limiter      string  starts in this rate-limit window
--   KEYS[8]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id       string
--   ARGV[3]  token        string  proof of the claim
--   ARGV[4]  counts       string  "-1": it was not even a start, else ""
--   returns  ms that the rate limit still lasts, or 0 | ERR_JOB_NOT_FOUND | ERR_LOCK_NOT_FOUND | ERR_LOCK_MISMATCH
--   events   waiting      jobId, prev

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/release_lock"
--- @include "includes/is_open"
--- @include "includes/wake"

local wait, active, prioritized, stalled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local marker, meta, limiter, events = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local base, job_id, token, counts = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job_key = base .. job_id

if redis.call('EXISTS', job_key) == 0 then
  return ERR_JOB_NOT_FOUND
end
local code = release_lock(job_key, stalled, job_id, token)
if code < 0 then
  return code
end
if redis.call('LREM', active, 1, job_id) > 0 then
  if counts == '-1' then
    redis.pcall('HINCRBY', job_key, 'ats', -1)
  end
  local settings = redis.call('HMGET', meta, 'paused', 'concurrency', 'opts.maxLenEvents')
  local priority = tonumber(redis.pcall('HGET', job_key, 'priority') or 0) or 0
  if priority > 0 then
    -- Sequence 0 stands before every other job of this priority.
    redis.call('ZADD', prioritized, string.format('%.0f', priority * 4294967296), job_id)
  else
    redis.call('RPUSH', wait, job_id)
    wake(marker, is_open(active, settings[1], settings[2]))
  end
  redis.call('XADD', events, 'MAXLEN', '~', max_events(meta, settings[3]), '*', 'event', 'waiting',
    'jobId', job_id, 'prev', 'active')
end
return math.max(redis.call('PTTL', limiter), 0)
