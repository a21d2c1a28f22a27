-- Take up a lease again after a lost connection.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms   3 the name that it goes on by   4... the tokens that it knows it holds
-- Returns {lease (1 held, 0 lost), returned}: `returned` messages were fetched in a reply that never arrived, and are
--       back at the head of the queue.
--
-- Under its new name no turn of the lost connection is the consumer's any more, should one still be on its way.

if not redis.call('ZSCORE', KEYS[CONSUMERS], ARGV[1]) then return {0, 0} end
write_although_full()
local known = {}
for i = 4, #ARGV do known[ARGV[i]] = true end
local returned = release(KEYS[IN_FLIGHT] .. ARGV[1], return_to_head, known)
if ARGV[3] ~= ARGV[1] then
  redis.call('ZREM', KEYS[CONSUMERS], ARGV[1])
  if redis.call('EXISTS', KEYS[IN_FLIGHT] .. ARGV[1]) == 1 then
    redis.call('RENAME', KEYS[IN_FLIGHT] .. ARGV[1], KEYS[IN_FLIGHT] .. ARGV[3])
  end
end
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[3])
count('returned', returned)
if returned > 0 then wake(1) end
return {1, returned}
