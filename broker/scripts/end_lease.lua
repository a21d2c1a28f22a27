-- End a consumer's lease: release its messages in flight to the head of the queue, without counting a delivery.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer
-- Returns the number of messages released.

local released = release(KEYS[IN_FLIGHT] .. ARGV[1], return_to_head)
redis.call('ZREM', KEYS[CONSUMERS], ARGV[1])
count('returned', released)
if depth() > 0 then wake(1) end
return released
