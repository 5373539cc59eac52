-- reclaim_locks: active stays active
-- For a worker that fell silent and is back: takes locks again that have run out, of jobs that are still its own.
-- A job is, while it is in `active`, nobody holds its lock, and nobody has started it since.
--
--   KEYS[1]  stalled   set     ids that the next stalled check looks at
--   KEYS[2]  active    list    job ids, the newest at the left
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  lock_ms   int     how long the locks last from now
--   ARGV[3]  jobs      list    per job: id, token, ats, processedOn; of the start that the worker means
--   returns  ids of the jobs that are the worker's no longer

local stalled, active = KEYS[1], KEYS[2]
local base, lock_ms = ARGV[1], ARGV[2]

local is_active = {}
for _, job_id in ipairs(redis.call('LRANGE', active, 0, -1)) do
  is_active[job_id] = true
end

-- The token of who held it last has gone with the lock; the counter and the time of the start have not. Without
-- them a worker that slept through two locks would take the job from whoever has started it in between.
local function is_same_start(job_key, starts, started_ms)
  local start = redis.pcall('HMGET', job_key, 'ats', 'processedOn')
  return start[1] == starts and start[2] == started_ms
end

local lost = {}
for at = 3, #ARGV, 4 do
  local job_id, token = ARGV[at], ARGV[at + 1]
  local lock = base .. job_id .. ':lock'
  local holder = redis.call('GET', lock)
  if holder == token
    or not holder and is_active[job_id] and is_same_start(base .. job_id, ARGV[at + 2], ARGV[at + 3]) then
    redis.call('SET', lock, token, 'PX', lock_ms)
    redis.call('SREM', stalled, job_id)
  else
    lost[#lost + 1] = job_id
  end
end
return lost
