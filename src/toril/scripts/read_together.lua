-- read_together: answers to several questions, at one moment
-- What a transaction would do; but a server whose memory is full queues no command, not even one that only reads.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  commands  string  MessagePack: {command that only reads, argument, ...} each
--   returns  {answer, or the error in its place, ...}

local answers = {}
for i, command in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[i] = redis.pcall(unpack(command))
end
return answers
