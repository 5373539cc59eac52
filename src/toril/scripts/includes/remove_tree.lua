--- @include "includes/split_key"
--- @include "includes/queue_keys"
--- @include "includes/max_events"
--- @include "includes/detach"
--- @include "includes/delete_job"
--- @include "includes/forget_dedup"
--- @include "includes/take_out"
-- Removes a job wherever it is and, unless `kinds` is empty, the children that hang off it, deepest
-- first. `kinds` is a list of {suffix, command that lists the keys of children}; `spares(child_key)`
-- may keep a child; `parent_key` is given for a child that is removed with its parent.
local function remove_tree(base, job_id, parent_key, kinds, spares)
  local job_key = base .. job_id
  detach(job_key, false, parent_key, base)
  for _, kind in ipairs(kinds) do
    local children = redis.call(kind[2], job_key .. kind[1], unpack(kind, 3))
    for _, child_key in ipairs(children) do
      if not spares or not spares(child_key) then
        local child_base, child_id = split_key(child_key)
        remove_tree(child_base, child_id, job_key, kinds, spares)
      end
    end
  end
  local prev = take_out(base, job_id)
  forget_dedup(base, redis.call('HGET', job_key, 'deid'), job_id)
  if delete_job(job_key) > 0 then
    local keys = queue_keys(base)
    local max_len = max_events(keys.meta, redis.call('HGET', keys.meta, 'opts.maxLenEvents'))
    redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'removed', 'jobId', job_id, 'prev', prev)
  end
end
