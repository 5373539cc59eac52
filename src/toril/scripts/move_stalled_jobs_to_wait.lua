-- move_stalled_jobs_to_wait: active -> waiting
-- Takes back jobs whose worker has fallen silent: active at the last check, without a lock at this one.
-- A job that stalls too often gets a deferred failure, and the next worker that picks it up fails it.
-- Of all workers that ask within an interval only the first does the work.
--
--   KEYS[1]  stalled        set     ids that this check looks at
--   KEYS[2]  wait           list    job ids, the next to run at the right
--   KEYS[3]  active         list    job ids, the newest at the left
--   KEYS[4]  stalled-check  string  its presence says that another worker has just checked
--   KEYS[5]  meta           hash    settings of the queue
--   KEYS[6]  marker         zset    wakes blocked workers
--   KEYS[7]  repeat         zset    job scheduler id -> next run, ms
--   KEYS[8]  events         stream
--   ARGV[1]  base           string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms         int     what time it is
--   ARGV[3]  max_stalled    int     how often a job may stall
--   ARGV[4]  interval_ms    int     how long this check stands for all workers
--   returns  ids of the jobs taken back
--   events   waiting        jobId, prev
--   events   stalled        jobId

--- @include "includes/max_events"
--- @include "includes/is_open"
--- @include "includes/wake"

local stalled, wait, active, check = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local meta, marker, schedulers, events = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local base, now_ms, max_stalled, interval_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

if redis.call('EXISTS', check) == 1 then
  return {}
end
redis.call('SET', check, now_ms, 'PX', interval_ms)
local settings = redis.call('HMGET', meta, 'opts.maxLenEvents', 'paused', 'concurrency')
redis.call('XTRIM', events, 'MAXLEN', '~', max_events(meta, settings[1]))

-- Whose run is planned by a scheduler comes back however often it stalls: nobody else would plan the next.
local function is_scheduled(job_key)
  local scheduler = redis.call('HGET', job_key, 'rjk')
  return scheduler and (redis.call('EXISTS', base .. 'repeat:' .. scheduler) == 1
    or redis.call('ZSCORE', schedulers, scheduler))
end

-- Not `call`: one spoilt record would end every check before it has looked at the others.
local function count_stall(job_key)
  local stalls = redis.pcall('HINCRBY', job_key, 'stc', 1)
  if type(stalls) == 'table' then
    redis.pcall('HSET', job_key, 'stc', 1)
    return 1
  end
  return stalls
end

local taken_back = {}
local suspects = redis.call('SMEMBERS', stalled)
if #suspects > 0 then
  redis.call('DEL', stalled)
end
for _, job_id in ipairs(suspects) do
  local job_key = base .. job_id
  if redis.call('EXISTS', job_key .. ':lock') == 0 and redis.call('LREM', active, 1, job_id) > 0 then
    if count_stall(job_key) > max_stalled and not is_scheduled(job_key) then
      redis.call('HSET', job_key, 'defa', 'job stalled more than allowable limit')
    end
    redis.call('RPUSH', wait, job_id)
    wake(marker, is_open(active, settings[2], settings[3]))
    redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', job_id, 'prev', 'active')
    redis.call('XADD', events, '*', 'event', 'stalled', 'jobId', job_id)
    taken_back[#taken_back + 1] = job_id
  end
end

local running = redis.call('LRANGE', active, 0, -1)
for i = 1, #running, 7000 do
  redis.call('SADD', stalled, unpack(running, i, math.min(i + 6999, #running)))
end
return taken_back
