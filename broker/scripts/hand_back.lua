-- Move delayed messages to the ready lists for stock workers, which fetch from these alone. A stock worker keeps a message
-- with an `eta` in its memory until it is due.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 the most to move in this call
-- Returns the number moved. Messages that were put aside are among them.
--
-- A message leaves the delayed set in the step that puts it on a ready list.

local found = redis.call('ZRANGE', KEYS[DELAYED], 0, tonumber(ARGV[1]) - 1)
for _, member in ipairs(found) do
  redis.call('ZREM', KEYS[DELAYED], member)
  forget_aside(member, headers_of(string.sub(member, 2)).task)
  redis.call('LPUSH', KEYS[READY + tonumber(string.sub(member, 1, 1))], string.sub(member, 2))
end
count('handed_back', #found)
return #found
