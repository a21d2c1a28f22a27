-- Take or renew the lease of the leading scheduler.
--
-- KEYS  1 name of the leader, a string that expires
-- ARGV  1 own name   2 lease ms, or 0 to give it up
-- Returns 1 if the caller leads, else 0.

local leader, lease = redis.call('GET', KEYS[1]), tonumber(ARGV[2])
if leader and leader ~= ARGV[1] then
  -- After the clock was set back, the lease of a dead leader would last longer than a new one.
  if redis.call('PTTL', KEYS[1]) > lease and lease > 0 then redis.call('PEXPIRE', KEYS[1], lease) end
  return 0
end
if lease == 0 then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', lease)
return 1
