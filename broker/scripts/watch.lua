-- Look whether messages are ready or due, and wake one idle process if there are; called by a process that watches the queue.
--
-- KEYS  1-4 the ready lists of a queue   5 its delayed messages; no other: an old server tells the caller of a change to any
--       key that is named here
-- ARGV  1 the wake list   2 the hash of the drain rate
-- Returns two numbers in a text (a list is a notice to the caller): of ready lists that are not empty and of messages that are
--       due; and the ms until the next is due, or -1.

redis.call('HDEL', ARGV[2], '')  -- a server that is out of memory must not refuse this
local now = now_ms()
redis.call('HSET', ARGV[2], 'spoken_at', now)
local found = redis.call('EXISTS', unpack(KEYS, 1, 4)) + redis.call('ZCOUNT', KEYS[5], '-inf', now)
local later = redis.call('ZRANGEBYSCORE', KEYS[5], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if found > 0 then
  if redis.call('LPUSH', ARGV[1], 1) > 1 then
    redis.call('LPOP', ARGV[1])
  else
    redis.call('PEXPIRE', ARGV[1], 60000)
  end
end
return string.format('%d %d', found, later[2] and math.ceil(tonumber(later[2]) - now) or -1)
