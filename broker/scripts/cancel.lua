-- Cancel a task or a batch.
--
-- KEYS  1 sorted set of cancelled tasks and batches, name -> when it is forgotten (ms)   2 control epoch
--       3 batch hash, or KEYS[1] for a task   4 sorted set like 1, of those whose running tasks are terminated
--       5 list of the latest cancellations, each 'epoch', a space, ARGV[3], a space, name
-- ARGV  1 name: the task's id or the batch's key   2 ms it is kept   3 '1' to terminate running tasks
--       4 entries kept in the list
-- Returns the new epoch, or 0 if there is no such batch.

-- At most this many cancellations are kept, the newest.
local MOST = 200000

local now = now_ms()
if KEYS[3] ~= KEYS[1] then
  if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
  redis.call('HDEL', KEYS[3], '')  -- cancelling frees memory: it begins with a write that cannot grow
  redis.call('HSETNX', KEYS[3], 'closed_at', now)
  redis.call('HSETNX', KEYS[3], 'cancelled_at', now)
  complete_batch_if_done(KEYS[3], now)
end
for _, key in ipairs({KEYS[1], ARGV[3] == '1' and KEYS[4] or nil}) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  redis.call('ZADD', key, now + tonumber(ARGV[2]), ARGV[1])
  redis.call('ZREMRANGEBYRANK', key, 0, -MOST - 1)
end
local epoch = redis.call('INCR', KEYS[2])
redis.call('RPUSH', KEYS[5], epoch .. ' ' .. ARGV[3] .. ' ' .. ARGV[1])
redis.call('LTRIM', KEYS[5], -tonumber(ARGV[4]), -1)
redis.call('PEXPIRE', KEYS[5], ARGV[2])
redis.call('PUBLISH', KEYS[2], epoch)
return epoch
