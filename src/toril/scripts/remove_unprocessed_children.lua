-- remove_unprocessed_children: any state -> nowhere, for the children
-- Removes the children of a job that have neither ended nor begun. When the last one goes, a parent
-- that waits for them is released.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id    string
--   returns  0
--   events   removed   jobId, prev
--   events   waiting   jobId, prev

--- @include "includes/remove_tree"

local base, job_id = ARGV[1], ARGV[2]

-- At every level: who is held by a worker stays, and who has failed.
local function spares(child_key)
  local child_base, child_id = split_key(child_key)
  return redis.call('EXISTS', child_key .. ':lock') == 1 or redis.call('ZSCORE', child_base .. 'failed', child_id)
end

for _, child_key in ipairs(redis.call('SMEMBERS', base .. job_id .. ':dependencies')) do
  if not spares(child_key) then
    local child_base, child_id = split_key(child_key)
    remove_tree(child_base, child_id, base .. job_id, { { ':dependencies', 'SMEMBERS' } }, spares)
  end
end
return 0
