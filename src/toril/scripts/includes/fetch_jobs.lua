--- @include "includes/is_open"
--- @include "includes/promote_due"
--- @include "includes/limit_ttl"
--- @include "includes/take_ids"
--- @include "includes/start_jobs"
-- "Give me the next jobs", up to `want`: promotes what is due, obeys pause, rate limit and global
-- concurrency, and starts what it takes. It leaves what single fetches, one after another until one
-- comes back empty, would leave (if no more than 250 delayed jobs are due at once).
--
-- Returns a table: jobs (id, record, id, record, …), ttl_ms of a rate limit or 0, due_ms of the next
-- delayed job or '0' (only when there was nothing to take), and `closed`.
local function fetch_jobs(keys, base, now, worker, want)
  local answer = { jobs = {}, ttl_ms = 0, due_ms = '0', closed = false }
  local now_ms = tonumber(now)
  local meta = redis.call('HMGET', keys.meta, 'paused', 'concurrency', 'max', 'duration')
  local limit = { max = tonumber(meta[3]) or tonumber(worker.limit_max) }
  limit.duration = tonumber(worker.limit_duration) or tonumber(meta[4]) or 0
  if not (math.abs(limit.duration) < 2 ^ 53) then
    limit.duration = 0
  end
  local open = is_open(keys.active, meta[1], meta[2])
  local taken = 0
  if want > 0 then
    -- Once a call: what is due beyond 250 joins the line with the next fetches, and no call takes long.
    promote_due(keys, base, now_ms, open)
  end
  while taken < want do
    if worker.shares == '1' and taken == 0 then
      local waiting = redis.call('LLEN', keys.wait) + redis.call('ZCARD', keys.prioritized)
      want = math.min(want, math.max(math.ceil(waiting / 2), 1))
    end
    answer.ttl_ms = limit_ttl(keys.limiter, limit.max)
    answer.closed = not is_open(keys.active, meta[1], meta[2])
    if answer.ttl_ms > 0 or answer.closed then
      break
    end
    local room = want - taken
    if limit.max or meta[2] then
      -- Each start can change what the next may do.
      room = 1
    end
    local ids = take_ids(keys, room)
    taken = taken + start_jobs(keys, base, now, worker, ids, limit, answer.jobs)
    if #ids < room then
      redis.call('DEL', keys.pc)
      local first = redis.call('ZRANGE', keys.delayed, 0, 0, 'WITHSCORES')
      if first[2] then
        answer.due_ms = string.format('%.17g', tonumber(first[2]) / 4096)
      end
      break
    end
  end
  if taken > 0 then
    -- Unconditional: this is how a burst fans out, each worker waking the next.
    redis.call('ZADD', keys.marker, 0, '0')
  end
  return answer
end
