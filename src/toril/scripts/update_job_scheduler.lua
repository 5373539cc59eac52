-- update_job_scheduler: nowhere -> waiting, prioritized or delayed
-- Adds a job scheduler's next run when its pending one starts. Only that one does so: retries, older runs and
-- second tries plan nothing. Without a producer it mends a scheduler whose pending job is gone.
--
--   KEYS[1]  repeat       zset    job scheduler id -> next run, ms
--   KEYS[2]  id           string  counter of generated ids
--   KEYS[3]  wait         list    job ids, the next to run at the right
--   KEYS[4]  prioritized  zset    job id -> priority and sequence
--   KEYS[5]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[6]  active       list    counted for the global concurrency
--   KEYS[7]  pc           string  sequence of equal priorities
--   KEYS[8]  marker       zset    wakes blocked workers
--   KEYS[9]  meta         hash    settings of the queue
--   KEYS[10]  events      stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms       int     what time it is
--   ARGV[3]  scheduler_id  string
--   ARGV[4]  producer_id  string  the job that starts, or ""
--   ARGV[5]  planned_ms   int     the run whose job is gone; "" with a producer
--   ARGV[6]  next_ms      int     when a cron pattern fires next; "" for an interval
--   ARGV[7]  every        int     the interval in ms, if the record has none; ""
--   ARGV[8]  opts         string  of its next job, JSON, without id, delay and time
--   ARGV[9]  priority     int
--   ARGV[10]  lifo        string  "1": the next to run
--   returns  the new job's id | "" where there is nothing to plan
--   events   added        jobId, name
--   events   waiting      jobId
--   events   delayed      jobId, delay (due time, ms)
--   events   duplicated   jobId

--- @include "includes/max_events"
--- @include "includes/delete_job"
--- @include "includes/is_pending"
--- @include "includes/next_interval"
--- @include "includes/add_iteration"

local schedulers = KEYS[1]
local keys = {
  id = KEYS[2], wait = KEYS[3], prioritized = KEYS[4], delayed = KEYS[5], active = KEYS[6], pc = KEYS[7],
  marker = KEYS[8], meta = KEYS[9], events = KEYS[10],
}
local base, now_ms, scheduler_id, producer_id = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local planned_ms, next_ms, every_given = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local run = { opts = ARGV[8], priority = ARGV[9], lifo = ARGV[10] }
local key = base .. 'repeat:' .. scheduler_id

local planned = redis.call('ZSCORE', schedulers, scheduler_id)
if not planned then
  return ''
end
local pending_id = 'repeat:' .. scheduler_id .. ':' .. planned
local record = redis.call('HMGET', key, 'name', 'data', 'every', 'startDate', 'offset', 'missed')
local every = tonumber(record[3]) or tonumber(every_given)
if every and not (every >= 1 and every < 2 ^ 53) then
  every = nil
end
if every then
  next_ms = next_interval(tonumber(planned), every, now_ms, tonumber(record[5]), tonumber(record[4]), record[6])
end

if producer_id ~= '' then
  if producer_id ~= pending_id then
    return ''
  end
else
  -- Somebody else may have mended it, or replaced it, since it was seen.
  if planned ~= planned_ms or is_pending(keys, pending_id) then
    return ''
  end
  if not redis.call('HGET', base .. pending_id, 'finishedOn') and (tonumber(planned) > now_ms
      or redis.call('EXISTS', base .. pending_id) == 1) then
    -- It has never run: the same run again.
    next_ms = tonumber(planned)
    delete_job(base .. pending_id)
  end
end
if not next_ms then
  return ''
end

local next_text = string.format('%.0f', next_ms)
local max_len = max_events(keys.meta, redis.call('HGET', keys.meta, 'opts.maxLenEvents'))
if redis.call('EXISTS', key .. ':' .. next_text) == 1 then
  redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'duplicated',
    'jobId', 'repeat:' .. scheduler_id .. ':' .. next_text)
  return ''
end
redis.call('ZADD', schedulers, next_text, scheduler_id)
if type(redis.pcall('HINCRBY', key, 'ic', 1)) == 'table' then
  redis.call('HSET', key, 'ic', 1)
end
run.next_ms, run.is_cron, run.name, run.data = next_ms, not every, record[1] or '', record[2] or '{}'
return add_iteration(keys, base, now_ms, scheduler_id, run)
