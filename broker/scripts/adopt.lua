-- Give a lease to a consumer that has messages in flight and is not listed, because the list of consumers was deleted.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms
-- Returns the number of its messages in flight; 0 if it is listed, or has none.
--
-- A living consumer renews the lease. The messages of a dead one return to the queue when the lease expires.

local orphaned = redis.call('HLEN', KEYS[IN_FLIGHT] .. ARGV[1])
if orphaned == 0 or redis.call('ZSCORE', KEYS[CONSUMERS], ARGV[1]) then return 0 end
write_although_full()
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[1])
count('orphaned', orphaned)
forget_in_flight_count()
return orphaned
