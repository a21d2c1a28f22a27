-- Claim a mail for one delivery of its task, unless it was sent, or another delivery has the claim.
--
-- KEYS[1]  hash of the mail: '@' owner of the claim, 'u' end of the claim (ms), 's' set once every address has a reply,
--          and by address the mail server's reply ('+': accepted)
-- ARGV     owner, length of the claim in ms, seconds for which the hash is kept
-- returns  {0 taken | 1 busy | 2 sent, ms until another owner's claim ends, then addresses and replies in turn}
--
-- A claim that has ended goes to the next delivery that claims the mail. Until then, its owner may renew it.

local owner, length, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
local held = redis.call('HMGET', KEYS[1], '@', 'u', 's')
local state, wait = 0, 0
if held[3] then
  state = 2
elseif held[1] and held[1] ~= owner and tonumber(held[2]) > now then
  state, wait = 1, tonumber(held[2]) - now
else
  redis.call('HSET', KEYS[1], '@', owner, 'u', now + length)
  redis.call('EXPIRE', KEYS[1], ttl)
end
local reply = {state, wait}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if #all[i] > 1 then
    reply[#reply + 1] = all[i]
    reply[#reply + 1] = all[i + 1]
  end
end
return reply
