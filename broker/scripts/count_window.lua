-- Add to what a pool did in the present ten seconds.
--
-- KEYS  1 prefix of the windows of the pool
-- ARGV  1 ms of a window   2 ms it is kept   3 most fields   then in turn a field and the number to add to it
-- Returns 1.
--
-- A window has a bounded number of fields: what comes beyond is added to the field's group, its text up to the colon.

local now = now_ms()
local window = KEYS[1] .. math.floor(now / tonumber(ARGV[1]))
local fields, most = redis.call('HLEN', window), tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  local field = ARGV[i]
  if fields >= most and redis.call('HEXISTS', window, field) == 0 then
    field = (string.match(field, '^[^:]*') or '') .. ':others'
  end
  if redis.call('HINCRBY', window, field, ARGV[i + 1]) == tonumber(ARGV[i + 1]) then fields = fields + 1 end
end
redis.call('PEXPIRE', window, ARGV[2])
return 1
