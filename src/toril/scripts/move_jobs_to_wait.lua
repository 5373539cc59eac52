-- move_jobs_to_wait: failed, completed or delayed -> waiting
-- Retries finished jobs, or promotes delayed ones, up to `limit` a call, the earliest first.
--
--   KEYS[1]  from      zset    the state that they are in
--   KEYS[2]  wait      list    job ids, the next to run at the right
--   KEYS[3]  active    list    counted for the global concurrency
--   KEYS[4]  marker    zset    wakes blocked workers
--   KEYS[5]  meta      hash    settings of the queue
--   KEYS[6]  events    stream
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  state     string  failed, completed or delayed
--   ARGV[3]  limit     int     how many
--   ARGV[4]  until_ms  int     finished jobs that ended by then; not for delayed ones
--   returns  how many were moved; as many as the limit says that there may be more
--   events   waiting   jobId, prev

--- @include "includes/max_events"
--- @include "includes/is_open"
--- @include "includes/wake"
--- @include "includes/reattach"

local from, wait, active, marker, meta, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local base, state, limit, until_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local ids = redis.call('ZRANGEBYSCORE', from, 0, state == 'delayed' and '+inf' or until_ms, 'LIMIT', 0, limit)
if #ids == 0 then
  return 0
end
local settings = redis.call('HMGET', meta, 'opts.maxLenEvents', 'paused', 'concurrency')
local max_len = max_events(meta, settings[1])
for _, job_id in ipairs(ids) do
  local job_key = base .. job_id
  if state ~= 'delayed' then
    redis.call('HDEL', job_key, 'finishedOn', 'processedOn', state == 'failed' and 'failedReason' or 'returnvalue')
    reattach(job_key, state)
  end
  redis.call('XADD', events, 'MAXLEN', '~', max_len, '*', 'event', 'waiting', 'jobId', job_id, 'prev', state)
end
for i = 1, #ids, 7000 do
  local last = math.min(i + 6999, #ids)
  redis.call('ZREM', from, unpack(ids, i, last))
  redis.call('LPUSH', wait, unpack(ids, i, last))
end
wake(marker, is_open(active, settings[2], settings[3]))
return #ids
