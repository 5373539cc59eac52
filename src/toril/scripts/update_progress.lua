-- update_progress: the job stays where it is
--
--   KEYS[1]  meta      hash    settings of the queue
--   KEYS[2]  events    stream
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id    string
--   ARGV[3]  token     string  the worker's proof of its claim, or "" for anyone else
--   ARGV[4]  progress  string  JSON
--   returns  0 written | ERR_JOB_NOT_FOUND | ERR_LOCK_NOT_FOUND | ERR_LOCK_MISMATCH
--   events   progress  jobId, data

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/owns_job"

local meta, events = KEYS[1], KEYS[2]
local base, job_id, token, progress = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local code = owns_job(base .. job_id, token)
if code < 0 then
  return code
end
redis.call('HSET', base .. job_id, 'progress', progress)
local max_len = max_events(meta, redis.call('HGET', meta, 'opts.maxLenEvents'))
redis.call('XADD', events, 'MAXLEN', '~', max_len, '*', 'event', 'progress', 'jobId', job_id, 'data', progress)
return 0
