-- Cancel a task or a batch.
--
-- KEYS  1 sorted set of what is cancelled, name -> when it is forgotten, ms   2 epoch
--       3 batch hash, or '' for a task
-- ARGV  1 name: the task's id or the batch's key   2 ms it is remembered
-- Returns the new epoch, or 0 when there is no such batch.

local now = now_ms()
if KEYS[3] ~= '' then
  if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
  redis.call('HSETNX', KEYS[3], 'closed_at', now)
  redis.call('HSETNX', KEYS[3], 'cancelled_at', now)
  finish_batch_if_done(KEYS[3], now)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
local epoch = redis.call('INCR', KEYS[2])
redis.call('PUBLISH', KEYS[2], epoch)
return epoch
