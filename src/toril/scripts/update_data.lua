-- update_data: the job stays where it is
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id    string
--   ARGV[3]  token     string  the worker's proof of its claim, or "" for anyone else
--   ARGV[4]  data      string  JSON
--   returns  0 written | ERR_JOB_NOT_FOUND | ERR_LOCK_NOT_FOUND | ERR_LOCK_MISMATCH

--- @include "includes/error_codes"
--- @include "includes/owns_job"

local base, job_id, token, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local code = owns_job(base .. job_id, token)
if code < 0 then
  return code
end
redis.call('HSET', base .. job_id, 'data', data)
return 0
