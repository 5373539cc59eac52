-- dump: everything that stands under a queue's keys
-- One call, so that what a test compares is one moment.
--
--   ARGV[1]  base     string  "prefix:queue:"
--   ARGV[2]  forget   string  "1": delete the keys instead
--   returns  a list: per key its suffix, type, ms to live or -1, content as the server's own read command gives it

local READ = {
  string = function(key) return redis.call('GET', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  hash = function(key) return redis.call('HGETALL', key) end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
}

local base, forget = ARGV[1], ARGV[2]
local found = {}
-- A prefix of a test's own has no character that a pattern would read otherwise.
for _, key in ipairs(redis.call('KEYS', base .. '*')) do
  if forget == '1' then
    redis.call('DEL', key)
  else
    local kind = redis.call('TYPE', key).ok
    found[#found + 1] = { string.sub(key, #base + 1), kind, redis.call('PTTL', key), READ[kind](key) }
  end
end
return found
