-- get_dependencies: the children of a job, by how they stand, at one moment
-- A pipeline could see a child twice, or not at all, while it ends.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  job_id    string  the parent
--   ARGV[3]  is_count  string  "1": only how many
--   returns  {processed, unprocessed, ignored, failed}: {child key, return value as JSON, ...}, {child key, ...},
--            {child key, reason, ...}, {child key, ...} | {count of each, in this order}

local base, job_id, is_count = ARGV[1], ARGV[2], ARGV[3]
local key = base .. job_id

if is_count == '1' then
  return {
    redis.call('HLEN', key .. ':processed'),
    redis.call('SCARD', key .. ':dependencies'),
    redis.call('HLEN', key .. ':failed'),
    redis.call('ZCARD', key .. ':unsuccessful'),
  }
end
return {
  redis.call('HGETALL', key .. ':processed'),
  redis.call('SMEMBERS', key .. ':dependencies'),
  redis.call('HGETALL', key .. ':failed'),
  redis.call('ZRANGE', key .. ':unsuccessful', 0, -1),
}
