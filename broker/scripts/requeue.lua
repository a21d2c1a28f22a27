-- Requeue a dead letter: the same message joins the back of its queue, with no deliveries counted.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 id of the dead letter   2 key prefix
-- Returns 1, 0 if there is no such dead letter, or the id of the task that has its unique key now: then it stays.
--
-- The message leaves the dead letters in the step that puts it on its queue. Its task is pending again in its batch.

local found = redis.call('XRANGE', KEYS[DEAD], ARGV[1], ARGV[1])
if not found[1] then return 0 end
local fields = {}
for i = 1, #found[1][2], 2 do fields[found[1][2][i]] = found[1][2][i + 1] end
local message = fields.message

local headers, own = headers_of(message)
if type(own.once) == 'string' then
  local owner = redis.call('GET', KEYS[UNIQUE] .. own.once)
  if owner and owner ~= headers.id then return owner end
  redis.call('SET', KEYS[UNIQUE] .. own.once, headers.id, 'PX', UNIQUE_KEPT_MS)
end
redis.call('XDEL', KEYS[DEAD], ARGV[1])
redis.call('LPUSH', KEYS[READY + tonumber(fields.step or 0)], message)
count('requeued', 1)
local batch = names_in(headers, own, ARGV[2])
if batch ~= '' and redis.call('EXISTS', batch) == 1 then
  redis.call('HINCRBY', batch, 'failed', -1)
  redis.call('HINCRBY', batch, 'settled', -1)
  redis.call('HDEL', batch, 'completed_at')
  extend_batch_expiry(batch, UNFINISHED_MS)
end
wake(1)
return 1
