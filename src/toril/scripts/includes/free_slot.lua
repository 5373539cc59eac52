-- The first of 32 times, `every` apart, for which a scheduler has no job yet, whatever became of it; nil for none.
local function free_slot(base, scheduler_id, next_ms, every)
  for n = 0, 31 do
    local slot = next_ms + n * every
    if redis.call('EXISTS', base .. 'repeat:' .. scheduler_id .. ':' .. string.format('%.0f', slot)) == 0 then
      return slot
    end
  end
  return nil
end
