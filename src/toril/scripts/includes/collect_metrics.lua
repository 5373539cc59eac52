-- Counts jobs that have ended, per minute, the newest minute at the left; minutes without any are zeros.
local function collect_metrics(key, now_ms, points, count)
  local before = redis.call('HINCRBY', key, 'count', count) - count
  local known = redis.call('HMGET', key, 'prevTS', 'prevCount')
  if not known[1] then
    redis.call('HSET', key, 'prevTS', now_ms, 'prevCount', 0)
    return
  end
  local now_minute, then_minute = math.floor(tonumber(now_ms) / 60000), math.floor(tonumber(known[1]) / 60000)
  local minutes = math.min(now_minute - then_minute, points)
  if minutes <= 0 then
    return
  end
  redis.call('LPUSH', key .. ':data', before - tonumber(known[2] or 0))
  for _ = 2, minutes do
    redis.call('LPUSH', key .. ':data', 0)
  end
  redis.call('LTRIM', key .. ':data', 0, points - 1)
  redis.call('HSET', key, 'prevCount', before, 'prevTS', now_ms)
end
