-- remove_child_dependency: the child stays where it is
-- Cuts a child from its parent, which no longer waits for it.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id    string  the child
--   ARGV[3]  parent_key  string  full key of the parent
--   returns  0 cut | 1 there was no link | ERR_JOB_NOT_FOUND | ERR_PARENT_NOT_FOUND
--   events   waiting   jobId, prev

--- @include "includes/error_codes"
--- @include "includes/detach"

local base, job_id, parent_key = ARGV[1], ARGV[2], ARGV[3]
local job_key = base .. job_id

if redis.call('EXISTS', job_key) == 0 then
  return ERR_JOB_NOT_FOUND
end
if redis.call('EXISTS', parent_key) == 0 then
  return ERR_PARENT_NOT_FOUND
end
if not detach(job_key, false, parent_key, base) then
  return 1
end
redis.call('HDEL', job_key, 'parentKey', 'parent')
return 0
