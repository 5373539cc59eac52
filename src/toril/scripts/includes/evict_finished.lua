--- @include "includes/remove_job"
-- Forgets finished jobs by the rule of the job that has just finished: those older than `age` seconds,
-- at most `limit` of them, then those beyond the newest `count`. The job itself counts.
local function evict_finished(base, finished, now_ms, keep)
  if keep.age then
    local oldest = string.format('%.0f', now_ms - keep.age * 1000)
    local old = redis.call('ZREVRANGEBYSCORE', finished, oldest, 0, 'LIMIT', 0, keep.limit)
    for _, id in ipairs(old) do
      remove_job(base, id)
    end
    if #old < keep.limit then
      redis.call('ZREMRANGEBYSCORE', finished, '-inf', oldest)
    else
      for i = 1, #old, 7000 do
        redis.call('ZREM', finished, unpack(old, i, math.min(i + 6999, #old)))
      end
    end
  end
  if keep.count and keep.count > 0 then
    local beyond = redis.call('ZREVRANGE', finished, keep.count, -1)
    for _, id in ipairs(beyond) do
      remove_job(base, id)
    end
    if #beyond > 0 then
      redis.call('ZREMRANGEBYRANK', finished, 0, -(keep.count + 1))
    end
  end
end
