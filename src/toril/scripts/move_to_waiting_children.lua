-- move_to_waiting_children: active -> waiting-children
-- A job waits for its children, or for one of them; it runs again when they have ended.
--
--   KEYS[1]  active            list    job ids, the newest at the left
--   KEYS[2]  waiting-children  zset    job id -> since when, ms
--   KEYS[3]  stalled           set     ids that the next stalled check looks at
--   KEYS[4]  events            stream
--   ARGV[1]  base              string  "prefix:queue:", which every job key begins with
--   ARGV[2]  now_ms            int     what time it is
--   ARGV[3]  job_id            string
--   ARGV[4]  token             string  proof of the claim
--   ARGV[5]  child_key         string  full key of the child to wait for, or ""
--   returns  0 moved | 1 there is nothing to wait for, nothing changed | ERR_JOB_NOT_FOUND | ERR_FAILED_CHILDREN | ERR_LOCK_NOT_FOUND | ERR_LOCK_MISMATCH | ERR_JOB_NOT_IN_STATE
--   events   waiting-children  jobId, prev

--- @include "includes/error_codes"
--- @include "includes/release_lock"

local active, waiting_children, stalled, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local base, now_ms, job_id, token, child_key = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local job_key = base .. job_id
local dependencies = job_key .. ':dependencies'

if redis.call('EXISTS', job_key) == 0 then
  return ERR_JOB_NOT_FOUND
end
if redis.call('EXISTS', job_key .. ':unsuccessful') == 1 then
  return ERR_FAILED_CHILDREN
end
local pending
if child_key == '' then
  pending = redis.call('EXISTS', dependencies)
else
  pending = redis.call('SISMEMBER', dependencies, child_key)
end
if pending == 0 then
  return 1
end
local code = release_lock(job_key, stalled, job_id, token)
if code < 0 then
  return code
end
if redis.call('LREM', active, -1, job_id) == 0 then
  return ERR_JOB_NOT_IN_STATE
end
redis.call('ZADD', waiting_children, now_ms, job_id)
redis.call('XADD', events, '*', 'event', 'waiting-children', 'jobId', job_id, 'prev', 'active')
return 0
