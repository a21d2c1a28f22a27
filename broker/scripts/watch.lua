-- Look whether messages are ready or due, and wake one idle process if there are; called by a process that watches the queue.
--
-- KEYS  the ready lists of a queue, and no other: an old server tells the caller of a change to any key that is named here
-- ARGV  1 the wake list   2 the hash of the drain rate   3 the delayed messages
-- Returns the number of ready lists that are not empty, and of messages that are due.

redis.call('HDEL', ARGV[2], '')  -- a server that is out of memory must not refuse this
local now = now_ms()
redis.call('HSET', ARGV[2], 'spoken_at', now)
local found = redis.call('EXISTS', unpack(KEYS)) + redis.call('ZCOUNT', ARGV[3], '-inf', now)
if found > 0 then
  if redis.call('LPUSH', ARGV[1], 1) > 1 then
    redis.call('LPOP', ARGV[1])
  else
    redis.call('PEXPIRE', ARGV[1], 60000)
  end
end
return found
