-- remove_job_scheduler: delayed -> nowhere
-- Ends a job scheduler, and removes its pending job if it is still delayed. One that waits already is left to run.
--
--   KEYS[1]  repeat       zset    job scheduler id -> next run, ms
--   KEYS[2]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[3]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  scheduler_id  string
--   returns  0 removed | 1 there was none of this id
--   events   removed      jobId, prev

--- @include "includes/delete_job"

local schedulers, delayed, events = KEYS[1], KEYS[2], KEYS[3]
local base, scheduler_id = ARGV[1], ARGV[2]

local planned = redis.call('ZSCORE', schedulers, scheduler_id)
if planned then
  local job_id = 'repeat:' .. scheduler_id .. ':' .. planned
  if redis.call('ZREM', delayed, job_id) == 1 then
    delete_job(base .. job_id)
    redis.call('XADD', events, '*', 'event', 'removed', 'jobId', job_id, 'prev', 'delayed')
  end
end
if redis.call('ZREM', schedulers, scheduler_id) == 0 then
  return 1
end
redis.call('DEL', base .. 'repeat:' .. scheduler_id)
return 0
