-- Score and due time of a delayed job. The low 12 bits are a sequence number, so that jobs due in the
-- same millisecond keep their order. Both come back as text: such numbers need all their digits.
local function delayed_score(delayed, from_ms, delay_ms)
  local due = from_ms
  if delay_ms > 0 then
    due = from_ms + delay_ms
  end
  local low = due * 4096
  local high = (due + 1) * 4096 - 1
  local score = low
  local last = redis.call('ZREVRANGEBYSCORE', delayed, string.format('%.0f', high), string.format('%.0f', low),
    'WITHSCORES', 'LIMIT', 0, 1)
  if last[2] then
    score = math.min(tonumber(last[2]) + 1, high)
  end
  return string.format('%.0f', score), string.format('%.0f', due)
end
