-- move_to_finished: active -> completed or failed; then waiting, prioritized -> active
-- Ends a list of jobs, each with an answer of its own, and fetches up to `want` others in the same
-- call, which leaves what `move_to_active` would leave after them.
--
--   KEYS[1]   wait         list    job ids, the next to run at the right
--   KEYS[2]   active       list    job ids, the newest at the left
--   KEYS[3]   prioritized  zset    job id -> priority and sequence
--   KEYS[4]   delayed      zset    job id -> due time, ms * 4096
--   KEYS[5]   completed    zset    job id -> when it ended, ms
--   KEYS[6]   failed       zset    job id -> when it ended, ms
--   KEYS[7]   stalled      set     ids that the next stalled check looks at
--   KEYS[8]   pc           string  sequence of equal priorities
--   KEYS[9]   marker       zset    wakes blocked workers
--   KEYS[10]  meta         hash    settings of the queue
--   KEYS[11]  limiter      string  starts in this rate-limit window
--   KEYS[12]  events       stream
--   ARGV[1]   base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]   now_ms       int     what time it is
--   ARGV[3]   want         int     how many jobs to fetch at most; 0 fetches none
--   ARGV[4]   token        string  the value of the new locks; "0" takes none
--   ARGV[5]   lock_ms      int     how long they last
--   ARGV[6]   worker       string  name of the worker, or ""
--   ARGV[7]   limit_max    int     the worker's rate limit, or ""
--   ARGV[8]   limit_ms     int     its window, or ""
--   ARGV[9]   points       int     how many minutes of metrics are kept; 0 collects none
--   ARGV[10]  rules        JSON    a list of ["completed" or "failed", keep count (-1 all), keep age (s, or ""), keep limit]
--   ARGV[11]  jobs         list    per job: id, token, which rule, value, failure (JSON: its stack traces as JSON and the attempts) or ""
--   returns   {codes, ttl_ms, due_ms, closed, id, record, id, record, …}; per job 0 | ERR_JOB_NOT_FOUND | ERR_LOCK_NOT_FOUND | ERR_JOB_NOT_IN_STATE | ERR_PENDING_CHILDREN | ERR_LOCK_MISMATCH | ERR_FAILED_CHILDREN
--   events    completed          jobId, returnvalue, prev
--   events    failed             jobId, failedReason, prev
--   events    retries-exhausted  jobId, attemptsMade
--   events    drained
--   events    waiting            jobId, prev
--   events    waiting            jobId
--   events    added              jobId, name
--   events    delayed            jobId, delay (due time, ms)
--   events    active             jobId, prev

--- @include "includes/error_codes"
--- @include "includes/max_events"
--- @include "includes/release_lock"
--- @include "includes/finish_job"
--- @include "includes/finish_together"
--- @include "includes/fetch_jobs"

local keys = {
  wait = KEYS[1], active = KEYS[2], prioritized = KEYS[3], delayed = KEYS[4], completed = KEYS[5],
  failed = KEYS[6], stalled = KEYS[7], pc = KEYS[8], marker = KEYS[9], meta = KEYS[10],
  limiter = KEYS[11], events = KEYS[12],
}
local base, now_ms, want, points = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[9])
local worker = { token = ARGV[4], lock_ms = ARGV[5], name = ARGV[6], limit_max = ARGV[7], limit_duration = ARGV[8] }
local FIRST, FIELDS = 11, 5

local settings = redis.call('HMGET', keys.meta, 'opts.maxLenEvents', 'concurrency')
local is_trimmed = false

-- Once a call, before its first event, and only if a job really ends: who is refused has changed nothing.
local function trim_events()
  if not is_trimmed then
    redis.call('XTRIM', keys.events, 'MAXLEN', '~', max_events(keys.meta, settings[1]))
    is_trimmed = true
  end
end

local rules = {}
for i, rule in ipairs(cjson.decode(ARGV[10])) do
  rules[tostring(i)] = {
    target = rule[1], keep = { count = tonumber(rule[2]), age = tonumber(rule[3]), limit = tonumber(rule[4]) },
  }
end
local jobs, NO_FAILURE = {}, {}
for at = FIRST, #ARGV, FIELDS do
  local id, rule, failure = ARGV[at], rules[ARGV[at + 2]], NO_FAILURE
  if ARGV[at + 4] ~= '' then
    failure = cjson.decode(ARGV[at + 4])
  end
  jobs[#jobs + 1] = {
    id = id, key = base .. id, token = ARGV[at + 1], target = rule.target, keep = rule.keep, value = ARGV[at + 3],
    stacktrace = failure[1], attempts = failure[2],
  }
end

-- Under a global concurrency each end may open the queue for what the next one finds.
local codes = not settings[2] and #jobs > 1 and finish_together(keys, base, now_ms, jobs, points, trim_events)
if not codes then
  codes = {}
  for i, job in ipairs(jobs) do
    codes[i] = finish_job(keys, base, now_ms, job, points, trim_events)
  end
end
local has_finished = false
for _, code in ipairs(codes) do
  has_finished = has_finished or code == 0
end

local fetched = fetch_jobs(keys, base, now_ms, worker, want)
-- The queue is drained when the last to finish leaves nothing at all: no job now, none later, no reason to wait.
local nothing = #fetched.jobs == 0 and fetched.ttl_ms == 0 and not fetched.closed and fetched.due_ms == '0'
if has_finished and nothing
  and redis.call('EXISTS', keys.wait, keys.active, keys.prioritized) == 0 then
  redis.call('XADD', keys.events, '*', 'event', 'drained')
end
return { codes, fetched.ttl_ms, fetched.due_ms, fetched.closed and 1 or 0, unpack(fetched.jobs) }
