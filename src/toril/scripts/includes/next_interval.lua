-- When a scheduler with an interval runs next, and its phase within the interval; both whole ms. `previous` is its
-- last planned run or nil, `missed` what to make up for: 'all' runs, 'once', or none.
local function next_interval(previous, every, now_ms, offset, start_ms, missed)
  local next_ms
  if previous then
    next_ms = previous + every
    if next_ms < now_ms and missed == 'once' then
      next_ms = previous + math.floor((now_ms - previous) / every) * every
    elseif next_ms < now_ms and missed ~= 'all' then
      next_ms = math.floor(now_ms / every) * every + (offset or 0)
      if next_ms <= now_ms then
        next_ms = next_ms + every
      end
    end
  elseif start_ms then
    next_ms = math.max(start_ms, now_ms)
  elseif offset and offset > 0 then
    next_ms = math.floor(now_ms / every) * every + offset
    while next_ms <= now_ms do
      next_ms = next_ms + every
    end
  else
    next_ms = now_ms
  end
  next_ms = math.floor(next_ms)
  if not offset or offset == 0 then
    offset = math.floor(next_ms % every)
  end
  return next_ms, offset
end
