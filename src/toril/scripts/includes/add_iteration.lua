--- @include "includes/enqueue_job"
-- Adds a scheduler's next run as a job, and returns its id. `run` has next_ms, name, data (JSON), opts (a JSON object
-- that is not empty and lacks id, delay and, for a pattern, its time), priority, lifo ('1') and is_cron.
local function add_iteration(keys, base, now_ms, scheduler_id, run)
  local job_id = 'repeat:' .. scheduler_id .. ':' .. string.format('%.0f', run.next_ms)
  local delay = string.format('%.0f', math.max(0, run.next_ms - now_ms))
  -- Spliced rather than decoded: a round trip through Lua would lose digits and empty lists.
  local opts = string.sub(run.opts, 1, -2) .. ',"jobId":' .. cjson.encode(job_id) .. ',"delay":' .. delay
  if run.is_cron then
    opts = opts .. ',"prevMillis":' .. string.format('%.0f', run.next_ms)
  end
  opts = opts .. '}'
  redis.call('INCR', keys.id)
  enqueue_job(keys, base, {
    id = job_id, name = run.name, data = run.data, opts = opts, timestamp = string.format('%.0f', now_ms),
    delay = delay, priority = run.priority, is_lifo = run.lifo == '1',
  }, { scheduler_id = scheduler_id })
  return job_id
end
