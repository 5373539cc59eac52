-- remove_deduplication_key: frees a deduplication id that a job owns
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:"
--   ARGV[2]  dedup_id  string
--   ARGV[3]  job_id    string  only if this job owns it; "" whoever does
--   returns  1 freed | 0 it was not owned

local base, dedup_id, job_id = ARGV[1], ARGV[2], ARGV[3]
local key = base .. 'de:' .. dedup_id

if job_id ~= '' and redis.call('GET', key) ~= job_id then
  return 0
end
return redis.call('DEL', key)
