-- Renew a consumer's lease on a queue.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms
-- Returns 1, or 0 if the lease has expired: its messages belong to other consumers now.

if not redis.call('ZSCORE', KEYS[CONSUMERS], ARGV[1]) then return 0 end
write_although_full()
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[1])
count('renewed', 1)
return 1
