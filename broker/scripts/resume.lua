-- Take up a lease again after a lost connection.
--
-- KEYS  the queue's twelve (see _common.lua)
-- ARGV  1 consumer   2 lease ms   3... the tokens that the consumer knows it holds
-- Returns {lease (1 held, 0 lost), returned}: `returned` messages were fetched in a reply that never arrived, and are
--       back at the head of the queue.

if not redis.call('ZSCORE', KEYS[CONSUMERS], ARGV[1]) then return {0, 0} end
write_although_full()
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[1])
local known = {}
for i = 3, #ARGV do known[ARGV[i]] = true end
local returned = release(KEYS[HELD] .. ARGV[1], put_back, known)
count('returned', returned)
if returned > 0 then wake(1) end
return {1, returned}
