-- Resume a lease after a lost connection, under a new consumer name.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms   3 the new name of the consumer   4... the tokens that it has in flight
-- Returns {lease (1 held, 0 lost), released}: `released` messages were fetched in a reply that never arrived; they are at
--       the head of the queue again.
--
-- With the new name, a call of the lost connection that still arrives changes nothing.

if not redis.call('ZSCORE', KEYS[CONSUMERS], ARGV[1]) then return {0, 0} end
write_although_full()
local known = {}
for i = 4, #ARGV do known[ARGV[i]] = true end
local released = release(KEYS[IN_FLIGHT] .. ARGV[1], return_to_head, known)
if ARGV[3] ~= ARGV[1] then
  redis.call('ZREM', KEYS[CONSUMERS], ARGV[1])
  if redis.call('EXISTS', KEYS[IN_FLIGHT] .. ARGV[1]) == 1 then
    redis.call('RENAME', KEYS[IN_FLIGHT] .. ARGV[1], KEYS[IN_FLIGHT] .. ARGV[3])
  end
end
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[3])
count('returned', released)
if released > 0 then wake(1) end
return {1, released}
