-- Tells a blocked worker when the earliest delayed job is due. Done for a paused queue too.
local function set_alarm(marker, delayed)
  local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', marker, string.format('%.17g', tonumber(first[2]) / 4096), '1')
  end
end
