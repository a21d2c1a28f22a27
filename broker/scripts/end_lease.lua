-- Let a consumer go: what it still holds goes back to the head of its queue, no delivery counted.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer
-- Returns how many messages went back.

local returned = release(KEYS[IN_FLIGHT] .. ARGV[1], return_to_head)
redis.call('ZREM', KEYS[CONSUMERS], ARGV[1])
count('returned', returned)
if depth() > 0 then wake(1) end
return returned
