-- Renew a consumer's lease on a queue.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms
-- Returns 1; 0 if the lease has expired, so its messages belong to other consumers now; or 2 if the list of consumers was
--       deleted, and the lease is in force again.

write_although_full()
local lease = lease_of(ARGV[1])
if lease == 0 then return 0 end
local now = now_ms()
record_call(now, tonumber(ARGV[2]))
redis.call('ZADD', KEYS[CONSUMERS], now + tonumber(ARGV[2]), ARGV[1])
count('renewed', 1)
return lease
