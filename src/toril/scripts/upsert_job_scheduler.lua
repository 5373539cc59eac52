-- upsert_job_scheduler: nowhere -> waiting, prioritized or delayed
-- Makes a job scheduler, or replaces its definition, and gives it its one pending job. A pending job that has not
-- begun is replaced; with the same interval it keeps its time, so an upsert moves no schedule. So does an overdue run of
-- the same pattern, if the scheduler makes up for missed runs; else, as in BullMQ, the pattern's next time counts.
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
--   ARGV[4]  next_ms      int     when a cron pattern fires next; "" for an interval
--   ARGV[5]  every        int     the interval in ms; "" for a cron pattern
--   ARGV[6]  offset       int     the interval's phase in ms, or ""
--   ARGV[7]  start_ms     int     not before, or ""
--   ARGV[8]  name         string  of its jobs
--   ARGV[9]  data         string  of its jobs, JSON
--   ARGV[10]  opts        string  of its next job, JSON, without id, delay and time
--   ARGV[11]  priority    int
--   ARGV[12]  lifo        string  "1": the next to run
--   ARGV[13]  fields      string  the definition's record: JSON list of names and values in turn
--   returns  {job id, delay in ms} | ERR_SCHEDULER_SLOT_TAKEN | ERR_SCHEDULER_SLOTS_BUSY nothing planned
--   events   added        jobId, name
--   events   waiting      jobId
--   events   waiting      jobId, prev (of a parent that the replaced job had)
--   events   delayed      jobId, delay (due time, ms)

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/remove_job"
--- @include "includes/next_interval"
--- @include "includes/free_slot"
--- @include "includes/add_iteration"

local schedulers = KEYS[1]
local keys = {
  id = KEYS[2], wait = KEYS[3], prioritized = KEYS[4], delayed = KEYS[5], active = KEYS[6], pc = KEYS[7],
  marker = KEYS[8], meta = KEYS[9], events = KEYS[10],
}
local base, now_ms, scheduler_id = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local next_ms, every, given, start_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local run = { name = ARGV[8], data = ARGV[9], opts = ARGV[10], priority = ARGV[11], lifo = ARGV[12] }
local fields = cjson.decode(ARGV[13])
local key = base .. 'repeat:' .. scheduler_id

max_events(keys.meta, redis.call('HGET', keys.meta, 'opts.maxLenEvents'))
local old = redis.call('HMGET', key, 'every', 'ic', 'offset', 'pattern', 'tz')
local new = {}
for i = 1, #fields, 2 do
  new[fields[i]] = fields[i + 1]
end
local planned = redis.call('ZSCORE', schedulers, scheduler_id)
local is_same_interval = every and planned and tonumber(old[1]) == every
local offset = 0
if every then
  next_ms, offset = next_interval(is_same_interval and tonumber(planned) or nil, every, now_ms, given, start_ms)
end

-- Where a run was promoted, has begun and its time is still to come, the pending job is a later one. The same id again
-- would be the same job twice.
local function is_taken(ms)
  return redis.call('EXISTS', key .. ':' .. string.format('%.0f', ms)) == 1
end
if not every and planned and tonumber(planned) ~= next_ms and is_taken(next_ms) then
  return ERR_SCHEDULER_SLOT_TAKEN
end

-- Whoever can take the pending job out of its state may replace it; a job that has begun goes on.
local function take_pending()
  local job_id = key:sub(#base + 1) .. ':' .. planned
  if redis.call('EXISTS', base .. job_id) == 0 then
    return false
  end
  local is_taken = redis.call('ZREM', keys.delayed, job_id) + redis.call('ZREM', keys.prioritized, job_id) > 0
    or redis.call('LREM', keys.wait, 1, job_id) > 0
  if is_taken then
    remove_job(base, job_id, true, true)
  end
  return is_taken
end
local is_replaced = planned and take_pending()

local stored_offset = offset
if is_replaced then
  stored_offset = given
  local is_same_pattern = not every and new.pattern == old[4] and (new.tz or false) == old[5]
  if is_same_interval or (is_same_pattern and new.missed and tonumber(planned) <= now_ms) then
    next_ms = tonumber(planned)
  end
end
if every then
  next_ms = free_slot(base, scheduler_id, next_ms, every)
  if not next_ms then
    return ERR_SCHEDULER_SLOTS_BUSY
  end
elseif not is_replaced and is_taken(next_ms) then
  return ERR_SCHEDULER_SLOT_TAKEN
end

run.next_ms, run.is_cron = next_ms, not every
redis.call('ZADD', schedulers, string.format('%.0f', next_ms), scheduler_id)
redis.call('DEL', key)
redis.call('HSET', key, 'ic', old[2] or 1, unpack(fields))
local keeps = stored_offset and string.format('%.0f', stored_offset) or old[3]
if keeps then
  redis.call('HSET', key, 'offset', keeps)
end
local job_id = add_iteration(keys, base, now_ms, scheduler_id, run)
return { job_id, math.max(0, next_ms - now_ms) }
