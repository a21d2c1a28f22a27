-- Let a consumer go: what it still holds goes back to the head of its queue, no delivery counted.
--
-- KEYS  the queue's fifteen (see _common.lua)
-- ARGV  1 consumer
-- Returns how many messages went back.

local returned = release(KEYS[HELD] .. ARGV[1], put_back)
redis.call('ZREM', KEYS[CONSUMERS], ARGV[1])
count('returned', returned)
if depth() > 0 then wake(1) end
return returned
