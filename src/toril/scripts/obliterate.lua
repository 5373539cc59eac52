-- obliterate: all that a paused queue has -> nowhere
-- In steps: call again while it answers 1.
--
--   KEYS[1]  meta      hash    settings of the queue
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  limit     int     how many jobs to remove
--   ARGV[3]  force     string  "1": although jobs are active
--   returns  0 done | 1 there is more | -1 the queue is not paused | -2 there are active jobs
--   events   waiting   jobId, prev

--- @include "includes/remove_job"
--- @include "includes/list_ids"

local meta = KEYS[1]
local base, left, force = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'

if redis.call('HEXISTS', meta, 'paused') == 0 then
  return -1
end
if not force and redis.call('LLEN', base .. 'active') > 0 then
  return -2
end

local function empty(state)
  local ids, is_list = list_ids(base .. state, state, 0, left)
  for _, job_id in ipairs(ids) do
    if state == 'active' then
      redis.call('DEL', base .. job_id .. ':lock')
    end
    remove_job(base, job_id, true, true)
    if is_list then
      redis.call('LREM', base .. state, -1, job_id)
    else
      redis.call('ZREM', base .. state, job_id)
    end
  end
  left = left - #ids
end

local function forget_schedulers()
  local ids = redis.call('ZRANGE', base .. 'repeat', 0, left - 1)
  for _, scheduler in ipairs(ids) do
    redis.call('DEL', base .. 'repeat:' .. scheduler)
    redis.call('ZREM', base .. 'repeat', scheduler)
  end
  left = left - #ids
end

for _, state in ipairs({ 'active', 'delayed', 'repeat', 'completed', 'wait', 'paused', 'prioritized', 'waiting-children', 'failed' }) do
  if left > 0 then
    if state == 'repeat' then
      forget_schedulers()
    else
      empty(state)
    end
  end
end
if left <= 0 then
  return 1
end
for _, suffix in ipairs({ 'events', 'delay', 'stalled-check', 'stalled', 'id', 'pc', 'marker', 'limiter', 'meta',
  'metrics:completed', 'metrics:completed:data', 'metrics:failed', 'metrics:failed:data' }) do
  redis.call('DEL', base .. suffix)
end
return 0
