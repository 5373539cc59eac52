-- Takes up to `want` ids for running: from `wait` first, the oldest at its right end, then by priority.
-- Ids that begin with '0:' are wake-up markers of old versions and are thrown away.
local function take_ids(keys, want)
  local ids = {}
  while #ids < want do
    -- `or {}`: an empty list answers nil to RPOP with a count.
    local popped = redis.call('RPOP', keys.wait, math.min(want - #ids, 7000)) or {}
    if #popped == 0 then
      break
    end
    for _, id in ipairs(popped) do
      if string.sub(id, 1, 2) ~= '0:' then
        ids[#ids + 1] = id
      end
    end
  end
  if #ids < want then
    local popped = redis.call('ZPOPMIN', keys.prioritized, want - #ids)
    for i = 1, #popped, 2 do
      ids[#ids + 1] = popped[i]
    end
  end
  return ids
end
