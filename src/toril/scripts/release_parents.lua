-- release_parents: waiting-children -> waiting, prioritized or delayed
-- The last step of adding a flow: parents all of whose children had ended before are let go.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:" of any queue of the flow
--   ARGV[2]  now_ms    int     what time it is
--   ARGV[3]  parents   list    per job: its full key
--   returns  0
--   events   waiting   jobId, prev
--   events   delayed   jobId, delay (due time, ms)

--- @include "includes/split_key"
--- @include "includes/release_if_empty"

local now_ms = tonumber(ARGV[2])

for i = 3, #ARGV do
  local parent_key = ARGV[i]
  -- A parent to which a child could not be attached does not run without it.
  if redis.call('HDEL', parent_key, 'flowAttachmentFailed') == 0 then
    local base, parent_id = split_key(parent_key)
    release_if_empty(base, parent_id, now_ms)
  end
end
return 0
