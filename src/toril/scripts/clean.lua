-- clean: any state but waiting-children -> nowhere
-- Removes jobs of one state that are older than a given time, except pending runs of job schedulers and
-- jobs that a worker holds. It looks at up to `limit` jobs, and a spared one uses up the limit. Who goes on
-- skips those that were spared.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   KEYS[2]  events    stream
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  state     string  suffix of the key
--   ARGV[3]  before_ms  int    jobs of this time and older
--   ARGV[4]  limit     int     how many to look at; 0 looks at all
--   ARGV[5]  skip      int     how many of the oldest to leave alone
--   returns  {looked, ids}: how many were looked at, and who of them was removed
--   events   cleaned   count
--   events   waiting   jobId, prev

--- @include "includes/remove_job"
--- @include "includes/is_scheduled"
--- @include "includes/list_ids"

local events = KEYS[2]
local base, state, before_ms, limit, skip = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local key = base .. state
-- Which time counts: the first of these that the job has. One without any counts as old.
local TIMES = {
  delayed = { 'processedOn', 'timestamp' },
  prioritized = { 'timestamp' },
  wait = { 'finishedOn', 'processedOn', 'timestamp' },
}
TIMES.paused, TIMES.active = TIMES.wait, TIMES.wait

local function is_old(job_id)
  for _, field in ipairs(TIMES[state]) do
    local time = tonumber(redis.call('HGET', base .. job_id, field) or nil)
    if time then
      return time <= tonumber(before_ms)
    end
  end
  return true
end

local looked, removed = 0, {}
if TIMES[state] then
  local ids, is_list = list_ids(key, state, skip, limit > 0 and limit or 4294967296)
  looked = #ids
  for _, job_id in ipairs(ids) do
    local is_held = state == 'active' and redis.call('EXISTS', base .. job_id .. ':lock') == 1
    if not is_held and not is_scheduled(base, job_id) and is_old(job_id) then
      remove_job(base, job_id, true, true)
      if is_list then
        redis.call('LREM', key, -1, job_id)
      else
        redis.call('ZREM', key, job_id)
      end
      removed[#removed + 1] = job_id
    end
  end
else
  removed = redis.call('ZRANGEBYSCORE', key, 0, before_ms, 'LIMIT', 0, limit > 0 and limit or -1)
  looked = #removed
  for _, job_id in ipairs(removed) do
    remove_job(base, job_id, true, true)
    redis.call('ZREM', key, job_id)
  end
end
redis.call('XADD', events, '*', 'event', 'cleaned', 'count', #removed)
return { looked, removed }
