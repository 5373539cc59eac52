-- remove_job: any state but active -> nowhere
-- Removes a job and, if asked, all jobs below it. Where a worker holds one of them, nothing changes.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id    string
--   ARGV[3]  with_children  string  "1": those below it too
--   returns  1 removed, or there was none | 0 locked, nothing changed | ERR_SCHEDULER_JOB
--   events   removed   jobId, prev
--   events   waiting   jobId, prev

--- @include "includes/error_codes"
--- @include "includes/is_scheduled"
--- @include "includes/is_locked"
--- @include "includes/remove_tree"

local base, job_id, with_children = ARGV[1], ARGV[2], ARGV[3] == '1'

if is_scheduled(base, job_id) then
  return ERR_SCHEDULER_JOB
end
if is_locked(base .. job_id, with_children) then
  return 0
end
local kinds = {}
if with_children then
  kinds = { { ':processed', 'HKEYS' }, { ':failed', 'HKEYS' }, { ':unsuccessful', 'ZRANGE', 0, -1 }, { ':dependencies', 'SMEMBERS' } }
end
-- Not by its key: an id may have colons.
remove_tree(base, job_id, nil, kinds, nil)
return 1
