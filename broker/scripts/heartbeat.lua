-- Store the heartbeat of a worker process.
--
-- KEYS  1 the process's heartbeat   2 sorted set of processes by their last heartbeat   3 totals of its pool
--       4 set of pools   5 lock of the process that writes the next samples
-- ARGV  1 process   2 heartbeat (JSON)   3 ms it is kept   4 pool   5 ms between two samples   6 most kinds of a pool
--       then for each addition two: a field of the totals, a number to add
-- Returns 1 if the caller is to write the next samples, else 0.
--
-- The heartbeat and its additions to the totals are stored together or not at all. Totals have a bounded number of kinds: each
-- has a field 'kind:<kind>', and '#kinds' is their number. The figures of further kinds are added up as the kind 'others'.

local now = now_ms()
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[4])

local most, kinds_count, named = tonumber(ARGV[6]), nil, {}
local function name_of(kind)
  if not named[kind] then
    kinds_count = kinds_count or tonumber(redis.call('HGET', KEYS[3], '#kinds') or 0)
    if kinds_count >= most and redis.call('HEXISTS', KEYS[3], 'kind:' .. kind) == 0 then
      named[kind] = 'others'
    else
      if redis.call('HSETNX', KEYS[3], 'kind:' .. kind, 1) == 1 then
        kinds_count = redis.call('HINCRBY', KEYS[3], '#kinds', 1)
      end
      named[kind] = kind
    end
  end
  return named[kind]
end

local sums = {}
for i = 7, #ARGV, 2 do
  local field = ARGV[i]
  local figure, kind = string.match(field, '^(%a+:[^:]*:)(.*)$')
  if kind then field = figure .. name_of(kind) end
  sums[field] = (sums[field] or 0) + tonumber(ARGV[i + 1])
end
for field, sum in pairs(sums) do redis.call('HINCRBY', KEYS[3], field, string.format('%.0f', sum)) end

if redis.call('SET', KEYS[5], ARGV[1], 'NX', 'PX', ARGV[5]) then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. (now - tonumber(ARGV[3])))
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')  -- the clock was set back
  return 1
end
-- After the clock was set back, the lock would last longer than a new one.
if redis.call('PTTL', KEYS[5]) > tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[5], ARGV[5]) end
return 0
