--- @include "includes/delayed_score"
-- Puts a job among the delayed ones and says so. The event's `delay` is the due time, not a duration.
-- The caller sets the alarm.
local function add_to_delayed(delayed, events, max_len, job_id, from_ms, delay_ms)
  local score, due = delayed_score(delayed, from_ms, delay_ms)
  redis.call('ZADD', delayed, score, job_id)
  redis.call('XADD', events, 'MAXLEN', '~', max_len, '*', 'event', 'delayed', 'jobId', job_id, 'delay', due)
end
