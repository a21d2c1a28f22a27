-- Take up a lease again after a lost connection.
--
-- KEYS  the queue's twelve (see _common.lua)
-- ARGV  1 consumer   2 lease ms   3... the tokens that the consumer knows it holds
-- Returns {lease (1 held, 0 lost), returned}: `returned` messages were fetched in a reply that never arrived, and are
--       back at the head of the queue.

if not redis.call('ZSCORE', KEYS[CONSUMERS], ARGV[1]) then return {0, 0} end
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[1])
local known, returned = {}, 0
for i = 3, #ARGV do known[ARGV[i]] = true end
local held = KEYS[HELD] .. ARGV[1]
for _, token in ipairs(redis.call('HKEYS', held)) do
  if not known[token] then
    put_back(tonumber(string.match(token, '/(%d)$')), redis.call('HGET', held, token))
    redis.call('HDEL', held, token)
    returned = returned + 1
  end
end
count('returned', returned)
if returned > 0 then wake(1) end
return {1, returned}
