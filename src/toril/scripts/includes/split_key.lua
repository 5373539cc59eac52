-- Cuts a job's key at its last colon: the queue's base with its colon, and the id.
local function split_key(job_key)
  local base, id = string.match(job_key, '^(.*:)([^:]*)$')
  return base, id
end
