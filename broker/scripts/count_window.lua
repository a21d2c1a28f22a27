-- Add to the fields of a pool's present window.
--
-- KEYS  1 prefix of the windows of the pool
-- ARGV  1 ms of a window   2 ms it is kept   3 most fields of a group, then for each addition two: a field, a number, not 0
-- Returns 1.
--
-- A field's group is its text up to the colon. A window has a bounded number of fields of each group, which the field '#' and
-- the group counts. Further fields are added up in one more field, 'others'.

local now = now_ms()
local window = KEYS[1] .. math.floor(now / tonumber(ARGV[1]))
local most = tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  local field = ARGV[i]
  if redis.call('HINCRBY', window, field, ARGV[i + 1]) == tonumber(ARGV[i + 1]) then  -- it is new
    local group = string.match(field, '^[^:]*') or ''
    if redis.call('HINCRBY', window, '#' .. group, 1) > most then
      redis.call('HDEL', window, field)
      redis.call('HINCRBY', window, group .. ':others', ARGV[i + 1])
    end
    redis.call('PEXPIRE', window, ARGV[2])
  end
end
return 1
