-- Store the heartbeat of a worker process.
--
-- KEYS  1 the process's heartbeat   2 sorted set of processes by their last heartbeat   3 totals of its pool
--       4 set of pools   5 lock of the process that writes the next samples
-- ARGV  1 process   2 heartbeat (JSON)   3 ms it is kept   4 pool   5 ms between two samples
--       then in turn a field of the totals and a number to add to it
-- Returns 1 if the caller is to write the next samples, else 0.
--
-- The heartbeat and its additions to the totals are stored together or not at all.

local now = now_ms()
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[4])
for i = 6, #ARGV, 2 do redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1]) end
if redis.call('SET', KEYS[5], ARGV[1], 'NX', 'PX', ARGV[5]) then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. (now - tonumber(ARGV[3])))
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')  -- the clock was set back
  return 1
end
-- After the clock was set back no lock lasts longer than one taken now.
if redis.call('PTTL', KEYS[5]) > tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[5], ARGV[5]) end
return 0
