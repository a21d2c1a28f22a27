-- Renew a consumer's lease on a queue.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms
-- Returns 1 while the lease is held, 0 when it was lost: all that it covered belongs to others now.

if not redis.call('ZSCORE', KEYS[CONSUMERS], ARGV[1]) then return 0 end
write_although_full()
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[1])
count('renewed', 1)
return 1
