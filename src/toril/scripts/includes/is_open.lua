-- May workers fetch from this queue now? Not while it is paused, nor while as many jobs are active as
-- its global concurrency allows. `paused` counts by presence, whatever its value.
local function is_open(active, paused, concurrency)
  if paused then
    return false
  end
  local most = tonumber(concurrency)
  -- Written so that a setting that is no number, `nan` among them, limits nothing.
  return not (most and redis.call('LLEN', active) >= most)
end
