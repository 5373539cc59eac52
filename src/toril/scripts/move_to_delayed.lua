-- move_to_delayed: active -> delayed
-- A failed attempt that waits for its next one, or a job that asks to run later.
--
--   KEYS[1]  active       list    job ids, the newest at the left
--   KEYS[2]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[3]  stalled      set     ids that the next stalled check looks at
--   KEYS[4]  marker       zset    wakes blocked workers
--   KEYS[5]  meta         hash    settings of the queue
--   KEYS[6]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms       int     what time it is
--   ARGV[3]  job_id       string
--   ARGV[4]  token        string  proof of the claim
--   ARGV[5]  delay_ms     int     from now
--   ARGV[6]  counts       string  "1": this was an attempt, "0": it was not, "-1": nor was it a start
--   ARGV[7]  failed_reason  string  raw text; written only where there is a stack trace
--   ARGV[8]  stacktrace   string  JSON, or "" where nothing failed
--   returns  0 moved | ERR_JOB_NOT_FOUND | ERR_LOCK_NOT_FOUND | ERR_LOCK_MISMATCH | ERR_JOB_NOT_IN_STATE
--   events   delayed      jobId, delay (due time, ms)

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/release_lock"
--- @include "includes/add_to_delayed"
--- @include "includes/set_alarm"
--- @include "includes/count_attempt"

local active, delayed, stalled, marker, meta, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local base, now_ms, job_id, token = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local delay_ms, counts, failed_reason, stacktrace = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local job_key = base .. job_id

if redis.call('EXISTS', job_key) == 0 then
  return ERR_JOB_NOT_FOUND
end
local code = release_lock(job_key, stalled, job_id, token)
if code < 0 then
  return code
end
if stacktrace ~= '' then
  redis.call('HSET', job_key, 'failedReason', failed_reason, 'stacktrace', stacktrace)
end
if redis.call('LREM', active, -1, job_id) == 0 then
  return ERR_JOB_NOT_IN_STATE
end
if counts == '1' then
  count_attempt(job_key)
elseif counts == '-1' then
  redis.pcall('HINCRBY', job_key, 'ats', -1)
end
redis.call('HSET', job_key, 'delay', delay_ms)
local max_len = max_events(meta, redis.call('HGET', meta, 'opts.maxLenEvents'))
add_to_delayed(delayed, events, max_len, job_id, now_ms, tonumber(delay_ms))
set_alarm(marker, delayed)
return 0
