-- The drain rate: how many messages the pool clears in a second, measured as they are settled.
--
-- DRAIN_RATE  hash: spoken_at  time of the last call or renewal of a consumer, ms
--             since, cleared, refused  start of this measurement (ms), and the counters at that time
--             idle   1 if a slot had nothing to do since then
--             rate   messages a second   held  messages in flight, both at the last measurement
--             counted  messages fetched so far when `held` was counted
--             flying   'n fetched ms': the messages in flight, known under an in-flight limit (settle_and_fetch.lua)
--             longest_lease  ms of the longest lease that was taken
--             silent_till  end of the last time without a call or renewal, ms
--             bound  messages that a bound given as a time was worth at the last measurement
--
-- The measured rate is the pool's capacity only while every slot is busy. A pool with idle slots may be faster than
-- measured, so its rate may only rise. The rate is an exponential mean over the time of ten messages, within limits, so
-- that a slow pool is measured by more than one task.

local MEASURE_MS, QUICKEST, SLOWEST, SAMPLE = 1000, 3, 15, 10

-- The value in messages of a bound that is given as a time, before the first measurement.
local FIRST_BOUND = 100

-- If the bound is so low that slots are idle, no rate can be measured: the bound grows by half at each measurement.
local GROWTH = 1.5

local function seconds_of(bound)
  return bound and tonumber(string.match(bound, '^([%d.]+)s$'))
end

-- Return a bound in messages. If it is a time ('30s'), that is what the pool clears in this time. 0 is no bound.
local function bound_in_messages(text)
  if not text then return 0 end
  if not seconds_of(text) then return tonumber(text) end
  return tonumber(redis.call('HGET', KEYS[DRAIN_RATE], 'bound') or FIRST_BOUND)
end

-- Count the messages in flight of all consumers. This needs a command for each consumer, so not every call does it.
local function total_in_flight()
  local total = 0
  for _, consumer in ipairs(redis.call('ZRANGE', KEYS[CONSUMERS], 0, -1)) do
    total = total + redis.call('HLEN', KEYS[IN_FLIGHT] .. consumer)
  end
  return total
end

-- Store the value in messages of a bound that is given as a time. The messages in flight are subtracted, because the pool
-- clears them first.
local function set_bound(rate, in_flight)
  local seconds = seconds_of(limit_texts('bound')[1])
  if not seconds then
    redis.call('HDEL', KEYS[DRAIN_RATE], 'bound')
  elseif rate then
    redis.call('HSET', KEYS[DRAIN_RATE], 'bound', math.max(1, math.floor(rate * seconds - in_flight + 0.5)))
  else
    redis.call('HSET', KEYS[DRAIN_RATE], 'bound', FIRST_BOUND)
  end
end

local function move_mean(rate, sample, seconds)
  local mean = math.min(SLOWEST, math.max(QUICKEST, SAMPLE / math.max(rate, sample)))
  return rate + (1 - math.exp(-seconds / mean)) * (sample - rate)
end

-- Return the new rate after a sample (messages a second) that took some seconds; nil if it is not known yet. If a slot was
-- idle, it can only rise. `starved_by` is the bound, seconds, if the bound is the reason for that.
local function estimated_rate(rate, sample, seconds, idle, starved_by)
  if not idle then return rate and move_mean(rate, sample, seconds) or sample end
  if starved_by then return math.max(rate or FIRST_BOUND / starved_by, sample) * GROWTH end
  if rate and sample > rate then return move_mean(rate, sample, seconds) end
  return rate
end

-- Measure the rate, at most once a second and only if messages were cleared. With `anew` start a new measurement, as when a
-- consumer joins.
local function measure(now, anew)
  local since, cleared_before, refused_before, idle, rate, held, counted_fetched =
    unpack(redis.call('HMGET', KEYS[DRAIN_RATE], 'since', 'cleared', 'refused', 'idle', 'rate', 'held', 'counted'))
  since, rate = tonumber(since), tonumber(rate)
  if since and now < since then anew = true end  -- the clock was set back
  if since and not anew and now - since < MEASURE_MS then return end
  local settled, retried, dead, shed, refused, fetched =
    unpack(redis.call('HMGET', KEYS[COUNTERS], 'settled', 'retried', 'dead', 'shed', 'refused', 'fetched'))
  local cleared = (settled or 0) + (retried or 0) + (dead or 0) - (shed or 0)
  refused, fetched = tonumber(refused or 0), fetched or '0'
  -- If no message was in flight and none was fetched since, none is in flight now.
  local in_flight = held == '0' and counted_fetched == fetched and 0 or total_in_flight()
  if since and not anew then
    local seconds, done = (now - since) / 1000, cleared - tonumber(cleared_before)
    if done <= 0 and not idle then return end
    local pressed = refused > tonumber(refused_before) or redis.call('EXISTS', KEYS[WAITERS]) == 1
    rate = estimated_rate(rate, done / seconds, seconds, idle, pressed and seconds_of(limit_texts('bound')[1]))
  end
  redis.call('HDEL', KEYS[DRAIN_RATE], 'idle')
  redis.call('HSET', KEYS[DRAIN_RATE], 'since', now, 'cleared', cleared, 'refused', refused,
    'held', in_flight, 'counted', fetched)
  if rate then redis.call('HSET', KEYS[DRAIN_RATE], 'rate', string.format('%.4f', rate)) end
  set_bound(rate, in_flight)
end

-- Leave messages out of the present measurement that were settled, but not by the pool.
local function leave_out_of_rate(n)
  if redis.call('HEXISTS', KEYS[DRAIN_RATE], 'cleared') == 1 then redis.call('HINCRBY', KEYS[DRAIN_RATE], 'cleared', n) end
end
