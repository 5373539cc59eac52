-- get_counts: how many jobs are in each state, at one moment?
-- An old wake-up marker of versions before 5 that stands where the next job would is no job, and is taken away.
--
--   KEYS[1]  active            list
--   KEYS[2]  completed         zset
--   KEYS[3]  delayed           zset
--   KEYS[4]  failed            zset
--   KEYS[5]  prioritized       zset
--   KEYS[6]  wait              list    job ids, the next to run at the right
--   KEYS[7]  waiting-children  zset
--   ARGV[1]  old_marker        string  "0:", with which the ids of those markers begin
--   returns  {count of each, in this order}

local active, completed, delayed, failed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prioritized, wait, waiting_children = KEYS[5], KEYS[6], KEYS[7]
local old_marker = ARGV[1]

local next_id = redis.call('LINDEX', wait, -1)
if next_id and next_id:sub(1, #old_marker) == old_marker then
  redis.call('RPOP', wait)
end
return {
  redis.call('LLEN', active),
  redis.call('ZCARD', completed),
  redis.call('ZCARD', delayed),
  redis.call('ZCARD', failed),
  redis.call('ZCARD', prioritized),
  redis.call('LLEN', wait),
  redis.call('ZCARD', waiting_children),
}
