-- Wake one idle process if messages are ready or due. Called by a process that watches the queue.
--
-- KEYS  1-4 the ready lists of a queue   5 its delayed messages. No others, because an old server notifies the caller of a
--       change to any key that is named here
-- ARGV  1 the wake list   2 the hash of the drain rate
-- Returns a text of two numbers, because a list would be taken for a notice: how many ready lists are not empty plus how many
--       messages are due; and the ms until the next is due, or -1.

redis.call('HDEL', ARGV[2], '')  -- a first write that needs no memory, so that a full server does not refuse the script
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
