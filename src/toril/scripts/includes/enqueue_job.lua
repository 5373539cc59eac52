--- @include "includes/store_job"
--- @include "includes/add_to_delayed"
--- @include "includes/set_alarm"
--- @include "includes/push_back"
--- @include "includes/max_events"
-- Stores a job that the server makes by itself (a scheduler's next run, a deduplicated job whose turn
-- has come) and puts it where its options say. `job` has id, name, data, opts, timestamp, delay and
-- priority (numbers or their text), is_lifo; see store_job for `extras`.
local function enqueue_job(keys, base, job, extras)
  store_job(base .. job.id, keys.events, job, extras)
  local max_len = max_events(keys.meta, redis.call('HGET', keys.meta, 'opts.maxLenEvents'))
  if tonumber(job.delay) > 0 then
    add_to_delayed(keys.delayed, keys.events, max_len, job.id, tonumber(job.timestamp), tonumber(job.delay))
    set_alarm(keys.marker, keys.delayed)
  else
    push_back(keys, job.id, tonumber(job.priority), job.is_lifo and 'RPUSH' or 'LPUSH')
    redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'waiting', 'jobId', job.id)
  end
end
