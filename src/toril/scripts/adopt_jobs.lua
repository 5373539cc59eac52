-- adopt_jobs: active stays active
-- After a lost answer to a fetch: finds the active jobs that hold this worker's token, so that it runs
-- them. Nobody else would until they stall. Changes nothing.
--
--   KEYS[1]  active   list    job ids, the newest at the left
--   ARGV[1]  base     string  "prefix:queue:", which every job key begins with
--   ARGV[2]  token    string  the token of the fetch whose answer was lost
--   returns  {id, record, id, record, …}; a record as it is now, after the start

local active = KEYS[1]
local base, token = ARGV[1], ARGV[2]

local found = {}
-- The newest are at the left; the order of the fetch is from right to left.
local running = redis.call('LRANGE', active, 0, -1)
for i = #running, 1, -1 do
  if redis.pcall('GET', base .. running[i] .. ':lock') == token then
    found[#found + 1] = running[i]
    found[#found + 1] = redis.call('HGETALL', base .. running[i])
  end
end
return found
