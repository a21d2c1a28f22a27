-- How fast the pool clears a queue, measured where it is settled; put before each script, after _queue.lua.
--
-- DRAIN_RATE  hash: spoken_at  when a consumer last took a turn, ms
--             since, cleared, refused  when this measurement began, and what the counters said then
--             idle   1 when a slot found nothing to do since then
--             rate   messages a second   held  messages that the consumers held, at the last measurement
--             bound  messages that a bound given as a time came to at the last measurement
--
-- Only while every slot is busy is what was cleared what can be cleared; a pool that had nothing to do may be faster than
-- it looks, so then the rate may only rise. The rate follows by an exponential mean whose time is that of ten messages,
-- within limits: a slow pool is estimated_rate by more than one task.

local MEASURE_MS, QUICKEST, SLOWEST, SAMPLE = 1000, 3, 15, 10

-- What a bound given as a time is worth before anything was measured.
local FIRST_BOUND = 100

-- While the bound itself starves the pool nothing true can be measured: the bound grows by half at each measurement.
local GROWTH = 1.5

local function seconds_of(bound)
  return bound and tonumber(string.match(bound, '^([%d.]+)s$'))
end

-- The bound in messages: a number stands for itself, a time ('30s') for what the pool clears in it; 0 is none.
local function bound_in_messages(text)
  if not text then return 0 end
  if not seconds_of(text) then return tonumber(text) end
  return tonumber(redis.call('HGET', KEYS[DRAIN_RATE], 'bound') or FIRST_BOUND)
end

local function total_in_flight()
  local held = 0
  for _, consumer in ipairs(redis.call('ZRANGE', KEYS[CONSUMERS], 0, -1)) do
    held = held + redis.call('HLEN', KEYS[IN_FLIGHT] .. consumer)
  end
  return held
end

-- What is held has been accepted as what waits has, and the pool clears it first.
local function set_bound(rate, held)
  local seconds = seconds_of(limit_texts('bound')[1])
  if not seconds then
    redis.call('HDEL', KEYS[DRAIN_RATE], 'bound')
  elseif rate then
    redis.call('HSET', KEYS[DRAIN_RATE], 'bound', math.max(1, math.floor(rate * seconds - held + 0.5)))
  else
    redis.call('HSET', KEYS[DRAIN_RATE], 'bound', FIRST_BOUND)
  end
end

local function follow(rate, sample, seconds)
  local mean = math.min(SLOWEST, math.max(QUICKEST, SAMPLE / math.max(rate, sample)))
  return rate + (1 - math.exp(-seconds / mean)) * (sample - rate)
end

-- The rate after so many messages in so many seconds; nil while it is not known.
local function estimated_rate(rate, sample, seconds, idle, starved_by)
  if not idle then return rate and follow(rate, sample, seconds) or sample end
  if starved_by then return math.max(rate or FIRST_BOUND / starved_by, sample) * GROWTH end
  if rate and sample > rate then return follow(rate, sample, seconds) end
  return rate
end

-- Measure, once a second at most and only when something was cleared; `anew` begins over, as when a consumer joins.
local function measure(now, anew)
  local p = redis.call('HMGET', KEYS[DRAIN_RATE], 'since', 'cleared', 'refused', 'idle', 'rate')
  local since = tonumber(p[1])
  if since and not anew and now - since < MEASURE_MS then return end
  local c = redis.call('HMGET', KEYS[COUNTERS], 'settled', 'retried', 'dead', 'shed', 'refused')
  local cleared = (c[1] or 0) + (c[2] or 0) + (c[3] or 0) - (c[4] or 0)
  local refused, rate, held = tonumber(c[5] or 0), tonumber(p[5]), total_in_flight()
  if since and not anew then
    local seconds, done = (now - since) / 1000, cleared - tonumber(p[2])
    if done <= 0 and not p[4] then return end
    local pressed = refused > tonumber(p[3]) or redis.call('EXISTS', KEYS[WAITERS]) == 1
    rate = estimated_rate(rate, done / seconds, seconds, p[4], pressed and seconds_of(limit_texts('bound')[1]))
  end
  redis.call('HDEL', KEYS[DRAIN_RATE], 'idle')
  redis.call('HSET', KEYS[DRAIN_RATE], 'since', now, 'cleared', cleared, 'refused', refused, 'held', held)
  if rate then redis.call('HSET', KEYS[DRAIN_RATE], 'rate', string.format('%.4f', rate)) end
  set_bound(rate, held)
end
