-- add_job: nowhere -> waiting, prioritized or delayed
-- Adds a list of jobs. Each leaves what it would leave if it were added alone, in the list's order, and
-- gets an answer of its own. A custom id that is taken adds nothing: its answer is that id.
--
--   KEYS[1]  id           string  counter of generated ids
--   KEYS[2]  wait         list    job ids, the next to run at the right
--   KEYS[3]  prioritized  zset    job id -> priority and sequence
--   KEYS[4]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[5]  active       list    counted for the global concurrency
--   KEYS[6]  pc           string  sequence of equal priorities
--   KEYS[7]  marker       zset    wakes blocked workers
--   KEYS[8]  meta         hash    settings of the queue
--   KEYS[9]  events       stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  jobs         list    per job: id or "", name, data (JSON), opts (JSON), timestamp (ms), delay (ms), priority, "1" for lifo
--   returns  a list: per job its id
--   events   added        jobId, name
--   events   waiting      jobId
--   events   delayed      jobId, delay (due time, ms)
--   events   duplicated   jobId

--- @include "includes/max_events"
--- @include "includes/is_open"
--- @include "includes/wake"
--- @include "includes/set_alarm"
--- @include "includes/add_to_delayed"
--- @include "includes/add_to_prioritized"

local counter, wait, prioritized, delayed, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local pc, marker, meta, events = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local base = ARGV[1]
local FIELDS = 8

local count = (#ARGV - 1) / FIELDS
local settings = redis.call('HMGET', meta, 'opts.maxLenEvents', 'paused', 'concurrency')
local max_len = max_events(meta, settings[1])
local open = is_open(active, settings[2], settings[3])

-- Every add takes a number, whether it needs one or not.
local number = redis.call('INCRBY', counter, count) - count
local answers, first_in, last_in = {}, {}, {}
local has_waiting, has_delayed = false, false

for i = 1, count do
  local at = 2 + (i - 1) * FIELDS
  local id, name, data, opts = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local timestamp, delay, priority, lifo = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  number = number + 1
  local is_taken = false
  if id == '' then
    id = string.format('%.0f', number)
  else
    is_taken = redis.call('EXISTS', base .. id) == 1
  end
  if is_taken then
    redis.call('XADD', events, 'MAXLEN', '~', max_len, '*', 'event', 'duplicated', 'jobId', id)
  else
    redis.call('HSET', base .. id, 'name', name, 'data', data, 'opts', opts, 'timestamp', timestamp,
      'delay', delay, 'priority', priority)
    redis.call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
    if delay ~= '0' then
      add_to_delayed(delayed, events, max_len, id, tonumber(timestamp), tonumber(delay))
      has_delayed = true
    else
      if priority ~= '0' then
        add_to_prioritized(prioritized, pc, id, tonumber(priority))
      elseif lifo == '1' then
        last_in[#last_in + 1] = id
      else
        first_in[#first_in + 1] = id
      end
      redis.call('XADD', events, 'MAXLEN', '~', max_len, '*', 'event', 'waiting', 'jobId', id)
      has_waiting = true
    end
  end
  answers[i] = id
end

-- The two ends of the list do not meet, so the order between them is free.
if #first_in > 0 then
  redis.call('LPUSH', wait, unpack(first_in))
end
if #last_in > 0 then
  redis.call('RPUSH', wait, unpack(last_in))
end
-- Markers last: whoever wakes must find the job.
if has_waiting then
  wake(marker, open)
end
if has_delayed then
  set_alarm(marker, delayed)
end
return answers
