-- add_job: nowhere -> waiting, prioritized, delayed or waiting-children
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
--   KEYS[9]  waiting-children  zset  job id -> since when, ms
--   KEYS[10]  events      stream
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  receipt      string  the slot whose key keeps this call's answer, or ""
--   ARGV[3]  call         int     tells this call from earlier ones in the slot
--   ARGV[4]  is_repeat    flag    "1": it has been sent before, and may have been heard
--   ARGV[5]  fields       int     how many arguments a job has: 9; 4 where all of them only wait; 2 where these share their options and time
--   ARGV[6]  jobs         list    per job: name, data (JSON), opts (JSON), timestamp (ms), id or "", delay (ms), priority, "1" for lifo, extras (JSON) or ""
--   returns  a list: per job its id | ERR_PARENT_NOT_FOUND | ERR_PARENT_TAKEN
--   events   added             jobId, name
--   events   waiting           jobId
--   events   waiting           jobId, prev
--   events   delayed           jobId, delay (due time, ms)
--   events   waiting-children  jobId
--   events   duplicated        jobId
--   events   deduplicated      jobId, deduplicationId, deduplicatedJobId
--   events   removed           jobId, prev
--
-- Extras are what few jobs have: parent_key and parent (JSON) of a child; is_parent of one that waits for
-- children; defers_release within a flow, whose parents are looked at when all of it is there; and
-- deduplication, the options of that name.
--
-- Jobs that only wait have none of what comes after the timestamp: no id, delay, priority, lifo or extras. What they
-- share, opts and timestamp, stands before the first of them; each then has its name and data.
--
-- A receipt makes a call safe to repeat after a lost answer: it is kept for five minutes at
-- <base>toril:add:<slot>, as JSON: the call's number, and its answers.

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/is_open"
--- @include "includes/wake"

local last_id, wait, prioritized, delayed, active, pc = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local marker, meta, waiting_children, events = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local base, slot, call = ARGV[1], ARGV[2], ARGV[3]
local fields = tonumber(ARGV[5])
local opts, timestamp
if fields == 2 then
  opts, timestamp = ARGV[6], ARGV[7]
end
local FIRST = opts and 8 or 6
local count = (#ARGV - FIRST + 1) / fields
local receipt = base .. 'toril:add:' .. slot
if ARGV[4] == '1' then
  local kept = redis.call('GET', receipt)
  if kept then
    local last = cjson.decode(kept)
    if last[1] == call then
      return last[2]
    end
  end
end

local settings = redis.call('HMGET', meta, 'opts.maxLenEvents', 'paused', 'concurrency')
local max_len = settings[1] and max_events(meta, settings[1])
local open = is_open(active, settings[2], settings[3])

if fields < 9 and count > 0 then
  -- What most calls are, without the tables and questions that the others need: those cost as much as the commands.
  local number, ids = redis.call('INCRBY', last_id, count) - count, {}
  max_len = max_len or max_events(meta)
  for i = 1, count do
    local at, id = FIRST + (i - 1) * fields, string.format('%d', number + i)
    local name = ARGV[at]
    redis.call('HSET', base .. id, 'name', name, 'data', ARGV[at + 1], 'opts', opts or ARGV[at + 2],
      'timestamp', timestamp or ARGV[at + 3], 'delay', '0', 'priority', '0')
    redis.call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
    if i < count then
      redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', id)
    else
      -- Cut once, it is as long as if each had cut it.
      redis.call('XADD', events, 'MAXLEN', '~', max_len, '*', 'event', 'waiting', 'jobId', id)
    end
    ids[i] = id
  end
  redis.call('LPUSH', wait, unpack(ids))
  wake(marker, open)
  if slot ~= '' then
    redis.call('SET', receipt, '["' .. call .. '",["' .. table.concat(ids, '","') .. '"]]', 'PX', '300000')
  end
  return ids
end

-- Only from here on, since every call would pay for making these functions.
--- @include "includes/set_alarm"
--- @include "includes/add_to_delayed"
--- @include "includes/add_to_prioritized"
--- @include "includes/store_job"
--- @include "includes/deduplicate"
--- @include "includes/attach_existing"

-- Numbers are taken one by one where a job may be refused before it takes one.
local is_plain = true
for at = FIRST, #ARGV, fields do
  is_plain = is_plain and ARGV[at + 8] == ''
end
local number = is_plain and redis.call('INCRBY', last_id, count) - count or nil

local keys = {
  id = last_id, wait = wait, prioritized = prioritized, delayed = delayed, active = active, pc = pc,
  marker = marker, meta = meta, waiting_children = waiting_children, events = events,
}
local answers, first_in, last_in = {}, {}, {}
local has_waiting, has_delayed = false, false

-- The two ends of the list do not meet, so the order between them is free. Markers come last: whoever
-- wakes must find the job.
local function flush()
  if #first_in > 0 then
    redis.call('LPUSH', keys.wait, unpack(first_in))
  end
  if #last_in > 0 then
    redis.call('RPUSH', keys.wait, unpack(last_in))
  end
  if has_waiting then
    wake(keys.marker, open)
  end
  if has_delayed then
    set_alarm(keys.marker, keys.delayed)
  end
  first_in, last_in, has_waiting, has_delayed = {}, {}, false, false
end

local function add(job, extras)
  if extras and extras.parent_key and redis.call('EXISTS', extras.parent_key) == 0 then
    return ERR_PARENT_NOT_FOUND
  end
  number = is_plain and number + 1 or redis.call('INCR', keys.id)
  max_len = max_len or max_events(keys.meta, max_len)
  if job.id == '' then
    job.id = string.format('%d', number)
  elseif redis.call('EXISTS', base .. job.id) == 1 then
    local code = attach_existing(base, job.id, extras, tonumber(job.timestamp))
    if code < 0 then
      return code
    end
    redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'duplicated', 'jobId', job.id)
    return job.id
  end
  if extras and extras.deduplication then
    local standing = deduplicate(keys, base, job, extras.deduplication, extras, max_len, not extras.is_parent)
    if standing then
      return standing
    end
    extras.dedup_id = extras.deduplication.id
  end
  store_job(base .. job.id, keys.events, job, extras)
  if extras and extras.is_parent then
    redis.call('ZADD', keys.waiting_children, job.timestamp, job.id)
    redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'waiting-children', 'jobId', job.id)
  elseif job.delay ~= '0' then
    add_to_delayed(keys.delayed, keys.events, max_len, job.id, tonumber(job.timestamp), tonumber(job.delay))
    has_delayed = true
  else
    if job.priority ~= '0' then
      add_to_prioritized(keys.prioritized, keys.pc, job.id, tonumber(job.priority))
    elseif job.lifo == '1' then
      last_in[#last_in + 1] = job.id
    else
      first_in[#first_in + 1] = job.id
    end
    redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'waiting', 'jobId', job.id)
    has_waiting = true
  end
  if extras and extras.parent_key then
    redis.call('SADD', extras.parent_key .. ':dependencies', base .. job.id)
  end
  return job.id
end

for i = 1, count do
  local at = FIRST + (i - 1) * fields
  local extras = ARGV[at + 8] ~= '' and cjson.decode(ARGV[at + 8]) or nil
  if extras then
    -- It may look at what the jobs before it have left.
    flush()
  end
  answers[i] = add({
    name = ARGV[at], data = ARGV[at + 1], opts = ARGV[at + 2], timestamp = ARGV[at + 3], id = ARGV[at + 4],
    delay = ARGV[at + 5], priority = ARGV[at + 6], lifo = ARGV[at + 7],
  }, extras)
end
flush()
if slot ~= '' then
  redis.call('SET', receipt, cjson.encode({ call, answers }), 'PX', '300000')
end
return answers
