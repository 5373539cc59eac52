-- add_log: the job stays where it is
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id    string
--   ARGV[3]  token     string  the worker's proof of its claim, or "" for anyone else
--   ARGV[4]  row       string
--   ARGV[5]  keep      int     how many of the newest rows are kept, or ""
--   returns  how many rows there are now | ERR_JOB_NOT_FOUND | ERR_LOCK_NOT_FOUND | ERR_LOCK_MISMATCH

--- @include "includes/error_codes"
--- @include "includes/owns_job"

local base, job_id, token, row, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local logs = base .. job_id .. ':logs'

local code = owns_job(base .. job_id, token)
if code < 0 then
  return code
end
local rows = redis.call('RPUSH', logs, row)
if not keep then
  return rows
end
if keep == 0 then
  redis.call('DEL', logs)
else
  redis.call('LTRIM', logs, -keep, -1)
end
return math.min(rows, keep)
