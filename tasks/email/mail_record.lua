-- Record the mail server's replies and end the claim.
--
-- KEYS[1]  hash of the mail, as in mail_claim.lua
-- ARGV     owner, seconds for which the hash is kept, 'open' | 'sent' | 'forget', then addresses and replies in turn
-- returns  1
--
-- A delivery that has lost the claim records its replies, too, because they are facts. '+' (accepted) is never
-- overwritten. Only the owner deletes the hash, and only the owner or 'sent' ends the claim.

local owner, ttl, mode = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local mine = redis.call('HGET', KEYS[1], '@') == owner
if mode == 'forget' then
  if mine then redis.call('DEL', KEYS[1]) end
  return 1
end
for i = 4, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= '+' then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
if mode == 'sent' then redis.call('HSET', KEYS[1], 's', '1') end
if mine or mode == 'sent' then redis.call('HDEL', KEYS[1], '@', 'u') end
redis.call('EXPIRE', KEYS[1], ttl)
return 1
