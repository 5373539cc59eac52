-- A page of a state's ids: of a list from its right end, where the oldest are; of a set from its lowest
-- score. Returns the ids, and whether it is a list.
local function list_ids(key, state, skip, limit)
  if state == 'wait' or state == 'paused' or state == 'active' then
    local page = redis.call('LRANGE', key, -(skip + limit), -(skip + 1))
    local ids = {}
    for i = #page, 1, -1 do
      ids[#ids + 1] = page[i]
    end
    return ids, true
  end
  return redis.call('ZRANGE', key, skip, skip + limit - 1), false
end
