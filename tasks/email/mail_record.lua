-- Record the mail server's answers and end the claim.
--
-- KEYS[1]  hash of the mail, as in mail_claim.lua
-- ARGV     owner, seconds the hash is remembered, 'open' | 'sent' | 'forget', then address and answer in turn
-- returns  1
--
-- An answer of the mail server is a fact, so a delivery that has lost the claim writes it too; '+' (accepted) is never
-- overwritten. Only the owner ends the claim or deletes the hash.

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
