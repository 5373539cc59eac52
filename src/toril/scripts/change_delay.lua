-- change_delay: delayed stays delayed
-- Moves the time at which a delayed job runs; the delay counts from now.
--
--   KEYS[1]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[2]  marker       zset    wakes blocked workers
--   KEYS[3]  meta         hash    settings of the queue
--   KEYS[4]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms       int     what time it is
--   ARGV[3]  job_id       string
--   ARGV[4]  delay_ms     int     from now
--   returns  0 moved | ERR_JOB_NOT_FOUND | ERR_JOB_NOT_IN_STATE
--   events   delayed      jobId, delay (due time, ms)

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/delayed_score"
--- @include "includes/set_alarm"

local delayed, marker, meta, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local base, now_ms, job_id, delay_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

if redis.call('EXISTS', base .. job_id) == 0 then
  return ERR_JOB_NOT_FOUND
end
-- The new place is looked for while the job still holds its old one, so that among equals it goes last.
local score, due = delayed_score(delayed, now_ms, tonumber(delay_ms))
if redis.call('ZREM', delayed, job_id) == 0 then
  return ERR_JOB_NOT_IN_STATE
end
redis.call('HSET', base .. job_id, 'delay', delay_ms)
redis.call('ZADD', delayed, score, job_id)
local max_len = max_events(meta, redis.call('HGET', meta, 'opts.maxLenEvents'))
redis.call('XADD', events, 'MAXLEN', '~', max_len, '*', 'event', 'delayed', 'jobId', job_id, 'delay', due)
set_alarm(marker, delayed)
return 0
