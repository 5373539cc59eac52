-- repair: mends one thing that fsck has found, if it is still so
-- Each fault is looked for again before anything is written, so a queue in use loses nothing by it.
--
--   KEYS[1]  wait              list    job ids
--   KEYS[2]  active            list    job ids
--   KEYS[3]  paused            list    job ids of an old version
--   KEYS[4]  prioritized       zset    job id -> priority and sequence
--   KEYS[5]  delayed           zset    job id -> due time
--   KEYS[6]  waiting-children  zset    job id -> since when
--   KEYS[7]  completed         zset    job id -> end
--   KEYS[8]  failed            zset    job id -> end
--   KEYS[9]  stalled           set     ids that the stalled check looks at
--   KEYS[10]  marker           zset    wakes blocked workers
--   ARGV[1]  base              string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms            int     what time it is
--   ARGV[3]  fault             string  parts | missing | doubled | marker | lock | endless | stalled | childless | child | dedup
--   ARGV[4]  id                string  of the job; for marker the member, for dedup the deduplication id
--   ARGV[5]  other             string  for child its full key, for endless how long the lock shall last in ms; else ""
--   returns  1 mended | 0 it is not so (any more), and nothing has changed
--   events   waiting           jobId, prev
--   events   delayed           jobId, delay (due time, ms)

--- @include "includes/delete_job"
--- @include "includes/split_key"
--- @include "includes/release_if_empty"

local wait, active, paused, prioritized, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local waiting_children, completed, failed, stalled, marker = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local lists, sets = { wait, active, paused }, { prioritized, delayed, waiting_children, completed, failed }
local base, now_ms, fault, id, other = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local job_key = base .. id

local function has_no_record()
  return redis.call('EXISTS', job_key) == 0
end

local function is_active()
  return redis.call('LPOS', active, id)
end

-- What a completed child returned may never have reached its parent.
local function is_done(child_key)
  local child_base, child_id = split_key(child_key)
  return redis.call('ZSCORE', child_base .. 'completed', child_id)
end

local mend = {}

-- Logs, links and a lock of a job that is gone.
mend.parts = function()
  if not has_no_record() then
    return 0
  end
  return delete_job(job_key) + redis.call('DEL', job_key .. ':lock')
end

-- An id in a state, without a record behind it.
mend.missing = function()
  if not has_no_record() then
    return 0
  end
  local removed = 0
  for _, key in ipairs(lists) do
    removed = removed + redis.call('LREM', key, 0, id)
  end
  for _, key in ipairs(sets) do
    removed = removed + redis.call('ZREM', key, id)
  end
  return removed
end

-- An id that stands several times in one list: the one that is next to run stays.
mend.doubled = function()
  local removed = 0
  for _, key in ipairs(lists) do
    local times = #redis.call('LPOS', key, id, 'COUNT', 0)
    if times > 1 then
      removed = removed + redis.call('LREM', key, times - 1, id)
    end
  end
  return removed
end

-- A member of the marker that wakes nobody.
mend.marker = function()
  if id == '0' or id == '1' then
    return 0
  end
  return redis.call('ZREM', marker, id)
end

mend.lock = function()
  if is_active() then
    return 0
  end
  return redis.call('DEL', job_key .. ':lock')
end

-- A lock that never runs out gets an end; then the stalled check takes its job back, if nobody renews it.
mend.endless = function()
  if redis.call('PTTL', job_key .. ':lock') ~= -1 then
    return 0
  end
  return redis.call('PEXPIRE', job_key .. ':lock', other)
end

mend.stalled = function()
  if is_active() then
    return 0
  end
  return redis.call('SREM', stalled, id)
end

-- A parent that waits, and has nobody to wait for.
mend.childless = function()
  if not redis.call('ZSCORE', waiting_children, id) or redis.call('SCARD', job_key .. ':dependencies') > 0 then
    return 0
  end
  release_if_empty(base, id, now_ms)
  return 1
end

-- A child that will never tell its parent: it is gone, belongs to another, or has completed already.
mend.child = function()
  if redis.call('SISMEMBER', job_key .. ':dependencies', other) == 0 then
    return 0
  end
  local is_gone = redis.call('EXISTS', other) == 0
  local has_completed = not is_gone and is_done(other)
  if not is_gone and not has_completed and redis.call('HGET', other, 'parentKey') == job_key then
    return 0
  end
  if has_completed then
    redis.call('HSETNX', job_key .. ':processed', other, redis.call('HGET', other, 'returnvalue') or 'null')
  end
  redis.call('SREM', job_key .. ':dependencies', other)
  release_if_empty(base, id, now_ms)
  return 1
end

-- A deduplication id that is owned for ever by a job that is gone, or has ended.
mend.dedup = function()
  local key = base .. 'de:' .. id
  local owner = redis.call('GET', key)
  if not owner or redis.call('PTTL', key) ~= -1 then
    return 0
  end
  local has_ended = redis.call('ZSCORE', completed, owner) or redis.call('ZSCORE', failed, owner)
  if redis.call('EXISTS', base .. owner) == 1 and not has_ended then
    return 0
  end
  return redis.call('DEL', key)
end

return math.min(mend[fault](), 1)
