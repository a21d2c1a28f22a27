-- Settle what a consumer has finished and fetch what it has room for, in one step.
--
-- KEYS  the queue's fifteen (see _queue.lua), 16 bucket of the rate limit, 17 epoch of cancellations
-- ARGV  1 consumer   2 lease ms   3 credit: messages it has room for   4 of these, how many a free slot waits for
--       5 '1' to register, for a consumer that is new   6 key prefix   7 number of this call, which the consumer counts
--       8 the kinds that the consumer has (_aside.lua), once for each of its names; else ''
--       then for each settlement nine: token, action, batch key or '', task id, state, detail (JSON), due ms, message,
--       name of the claim that ends with the task or ''
--   actions  'settle' the task is over (`state` counts in its batch; '' is none: it goes on as another message)
--            'drop' it is over, and was not run
--            'bury' it is over and a dead letter: due ms carries nothing, `message` the reason
--            'replace' a retry: `message` takes its place, due at `due ms`   'delay' the same message, due later;
--            what was cancelled meanwhile is over instead
--            'aside' the consumer does not have its kind, `message`: another may take it until `due ms` (_aside.lua), then it
--            is over, expired where `state` says so, else a dead letter with `detail`
--            'return' back to the head, no delivery counted   'redeliver' back to the head, counted
--            'requeue' to the back, counted
-- Returns {now ms, lease (1 held, 0 lost, 2 held although the list of consumers was deleted), late, next ms, epoch, limited (1 where
--       messages wait for a permit of the in-flight limit), then three for each message: token, deliveries before this one, message}. `late` counts settlements of messages that were no longer this consumer's; `next` is
--       when to look again: -1 not before a wake token, 0 at once, else in so many ms: something is due, or another
--       consumer's lease ends.
--
-- Only what this consumer still holds is settled. When the lease is lost nothing is settled and nothing fetched.

local consumer, lease, credit, slots, prefix = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6]
local now = now_ms()
local held = KEYS[IN_FLIGHT] .. consumer
local epoch = redis.call('GET', KEYS[17]) or '0'

write_although_full()
local had = ARGV[5] == '1' and 1 or lease_of(consumer)
if had == 0 then
  count('late', (#ARGV - 8) / 9)
  return {now, 0, (#ARGV - 8) / 9, -1, epoch, 0}
end
redis.call('ZADD', KEYS[CONSUMERS], now + lease, consumer)
if ARGV[8] ~= '' then announce_kinds(consumer, ARGV[8]) end

-- Settle ------------------------------------------------------------------------------------------------------
local late, settled, landed = 0, 0, 0  -- landed: messages that were in flight and are no more
local aside = {}  -- kinds that this call put aside

-- What was fetched and not run gives its token of the rate limit back.
local function refund()
  if redis.call('EXISTS', KEYS[16]) == 1 then redis.call('HINCRBYFLOAT', KEYS[16], 'tokens', 1) end
end

-- Asked in this step, so that whoever cancels finds what goes on later either here or among what is delayed.
local function is_cancelled(id, batch)
  for _, name in ipairs({id, batch}) do
    if tonumber(redis.call('ZSCORE', prefix .. 'millpond:cancelled', name) or 0) > now then return true end
  end
end

local function settle(message, token, action, batch, id, state, detail, due, text, claim)
  local priority = tonumber(string.match(token, '/(%d)$'))
  if (action == 'replace' or action == 'delay' or action == 'aside') and is_cancelled(id, batch) then
    action, state, detail = 'settle', 'cancelled', '{}'
    local headers, own = headers_of(message)
    leave_untold(message, headers, own, 'cancelled', '')
  end
  if action == 'return' or action == 'drop' or action == 'aside' then refund() end
  if action == 'settle' or action == 'drop' then
    forget_deliveries(message)
    settled = settled + 1
    if state == 'expired' then count('expired', 1) end
    if state ~= '' then free_unique_key(claim, id) end
    record(batch, id, state, detail, now)
  elseif action == 'bury' then
    local mark = redis.sha1hex(message)
    local before = tonumber(redis.call('HGET', KEYS[DELIVERIES], mark) or 0)
    redis.call('HDEL', KEYS[DELIVERIES], mark)
    dead_letter(priority, message, text, detail, before + 1, batch, id, now)
    free_unique_key(claim, id)
  elseif action == 'replace' then
    forget_deliveries(message)
    redis.call('ZADD', KEYS[DELAYED], due, priority .. text)
    count('retried', 1)
  elseif action == 'delay' then
    redis.call('ZADD', KEYS[DELAYED], due, priority .. message)
  elseif action == 'aside' then
    if put_aside(priority, message, text, due, state == 'expired' and 'e' or 'd', detail) then
      aside[text] = true
    else
      dead_letter(priority, message, 'unknown kind', detail, 1, batch, id, now)
      local headers, own = headers_of(message)
      leave_untold(message, headers, own, 'failed', 'unknown kind')
      free_unique_key(claim, id)
    end
  elseif action == 'return' then
    return_to_head(priority, message)
    count('returned', 1)
  else
    redeliver(priority, message, prefix, now, action == 'requeue')
  end
end

local tokens = {}
for i = 9, #ARGV, 9 do tokens[#tokens + 1] = ARGV[i] end
if #tokens > 0 then
  local messages = redis.call('HMGET', held, unpack(tokens))
  redis.call('HDEL', held, unpack(tokens))
  for n, token in ipairs(tokens) do
    if messages[n] then
      landed = landed + 1
      settle(messages[n], unpack(ARGV, 9 * n, 9 * n + 8))
    else
      late = late + 1
    end
  end
end
count('settled', settled)
count('late', late)
for kind in pairs(aside) do wake_those_with(kind, now) end

-- Sweep: what a dead consumer held goes back -------------------------------------------------------------------
-- A lease that expired while nobody spoke gets a moment to be renewed, once: it ends half a millisecond past a whole one.
local since, idle, longest, silent_till = speak(now, lease)
local expired = redis.call('ZRANGEBYSCORE', KEYS[CONSUMERS], '-inf', '(' .. now, 'WITHSCORES', 'LIMIT', 0, 10)
for i = 1, #expired, 2 do
  local dead, had_grace = expired[i], tonumber(expired[i + 1]) % 1 > 0
  local grace = silent_till + math.max(5000, longest / 2)
  if not had_grace and now <= grace then
    redis.call('ZADD', KEYS[CONSUMERS], math.floor(grace) + 0.5, dead)
  else
    release(KEYS[IN_FLIGHT] .. dead, function(priority, message) redeliver(priority, message, prefix, now) end)
    redis.call('ZREM', KEYS[CONSUMERS], dead)
    count('leases_lost', 1)
  end
end

-- End what was put aside and nobody took, which is not the pool's doing: its speed is measured without it.
local has_aside = redis.call('EXISTS', aside_key()) == 1
local over, are_more_over = 0, false
if has_aside then over, are_more_over = end_aside(prefix, now) end
if over > 0 and redis.call('HEXISTS', KEYS[DRAIN_RATE], 'cleared') == 1 then
  redis.call('HINCRBY', KEYS[DRAIN_RATE], 'cleared', over)
end

-- Promote: what is due joins the back of its queue ---------------------------------------------------------------
-- Not while some of it is aside and over: it is ended, not promoted.
local due = are_more_over and {} or redis.call('ZRANGEBYSCORE', KEYS[DELAYED], '-inf', now, 'LIMIT', 0, 100)
for _, entry in ipairs(due) do
  redis.call('ZREM', KEYS[DELAYED], entry)
  redis.call('LPUSH', KEYS[READY + tonumber(string.sub(entry, 1, 1))], string.sub(entry, 2))
end

-- Fetch -----------------------------------------------------------------------------------------------------
local LINE_MS = 1000  -- how often consumers look while producers wait for admission
local WATCHED_MS = 50
local next_ms = -1

local function sooner(ms)
  ms = math.max(0, math.ceil(ms))
  if next_ms < 0 or ms < next_ms then next_ms = ms end
end

-- How many messages the queue's limits allow now. Under a limit nothing is taken beyond the free slots, so that no
-- consumer sits on permits that another could use.
local texts = limit_texts('paused', 'rate', 'in_flight', 'message_bytes', 'probe')
local paused, rate, in_flight = texts[1] == '1', tonumber(texts[2] or 0), tonumber(texts[3] or 0)

-- A probe (broker/stats/elasticity.py) holds slots idle until a time, 'most@until ms': no prober has to take it back.
local most, till = string.match(texts[5] or '', '^(%d+)@(%d+)$')
if till and now < tonumber(till) and (in_flight == 0 or tonumber(most) < in_flight) then
  in_flight = tonumber(most)
  sooner(tonumber(till) - now)
end

-- Messages in flight, under an in-flight limit alone. Each call under the limit leaves what it knows, with the number of
-- messages fetched so far; a fetch that did not (for a caller, by an older version) shows by that number. What is released
-- forgets it. Once a second they are counted anew, for what an older version settles is not told.
local FLYING_MS = 1000
local ready, flying, known_since = depth(), 0, nil

local function in_flight_now()
  local n, fetched, at = string.match(redis.call('HGET', KEYS[DRAIN_RATE], 'flying') or '', '^(%d+) (%d+) (%d+)$')
  local age = now - tonumber(at or 0)
  if n and age >= 0 and age < FLYING_MS and fetched == (redis.call('HGET', KEYS[COUNTERS], 'fetched') or '0') then
    n = tonumber(n) - landed
    if n >= 0 then return n, tonumber(at) end
  end
  return total_in_flight(), now
end

local is_to_fetch = credit > 0 and not paused and (ready > 0 or has_aside)
if in_flight > 0 and (is_to_fetch or landed > 0) then flying, known_since = in_flight_now() end

local function allowance()
  if paused then return 0 end
  if rate == 0 and in_flight == 0 then return credit end
  local allowed = math.min(credit, slots)
  if in_flight > 0 and known_since then allowed = math.min(allowed, math.max(0, in_flight - flying)) end
  if rate > 0 and allowed > 0 then
    local burst = limit('burst', math.max(1, rate))
    local b = redis.call('HMGET', KEYS[16], 'tokens', 'at')
    local tokens = math.min(burst, tonumber(b[1] or burst) + math.max(0, now - tonumber(b[2] or now)) * rate / 1000)
    redis.call('HSET', KEYS[16], 'tokens', tostring(tokens), 'at', now)
    if tokens < 1 then sooner((1 - tokens) / rate * 1000) end
    allowed = math.min(allowed, math.floor(tokens))
  end
  return allowed
end

-- So many words go into one call: Lua's stack is bounded.
local MOST = 1000

local reply = {now, had, late, 0, epoch, 0}
local allowed = credit > 0 and allowance() or 0
local took, kept_all = 0, 0

local function hold(messages, step, longest)
  local last, kept = redis.call('HINCRBY', KEYS[COUNTERS], 'fetched', #messages), {}
  for i, message in ipairs(messages) do
    if #message > longest then
      dead_letter_undecoded(step, message, 'too long: ' .. #message .. ' bytes', 0, prefix, now)
    else
      local token = string.format('%d/%s/%d', last - #messages + i, ARGV[7], step)
      kept[#kept + 1] = token
      kept[#kept + 1] = message
      local before = deliveries_count() and redis.call('HGET', KEYS[DELIVERIES], redis.sha1hex(message))
      reply[#reply + 1] = token
      reply[#reply + 1] = tonumber(before or 0)
      reply[#reply + 1] = message
    end
  end
  kept_all = kept_all + #kept / 2
  for from = 1, #kept, MOST do redis.call('HSET', held, unpack(kept, from, math.min(#kept, from + MOST - 1))) end
end

if allowed > 0 then
  local longest = tonumber(texts[4] or 10000000)
  local known, are_more = {}, false
  if has_aside then known, are_more = take_aside(consumer, allowed) end
  for step = 0, STEPS - 1 do
    if known[step] then
      hold(known[step], step, longest)
      took = took + #known[step]
    end
  end
  if are_more then sooner(0) end
  for step = 0, STEPS - 1 do
    local messages = took < allowed and ready > 0 and redis.call('RPOP', KEYS[READY + step], allowed - took)
    if messages then
      hold(messages, step, longest)
      took = took + #messages
    end
  end
  if took > 0 and rate > 0 then redis.call('HINCRBYFLOAT', KEYS[16], 'tokens', -took) end
end

if known_since then
  local fetched = redis.call('HGET', KEYS[COUNTERS], 'fetched') or '0'
  redis.call('HSET', KEYS[DRAIN_RATE], 'flying', string.format('%d %s %d', flying + kept_all, fetched, known_since))
end

-- What waits for a permit is fetched by the call that settles something and so frees one: nobody is woken for it.
local left = took > 0 and depth() or ready
if left > 0 and in_flight > 0 and flying + took >= in_flight then
  reply[6] = 1
elseif left > 0 and took == allowed and allowed > 0 then
  wake(1)
  sooner(0)
elseif left > 0 and #ARGV > 8 then
  wake(1)  -- a permit of an in-flight limit may have come free for another consumer
end
if (paused or took < slots and left == 0) and not idle then redis.call('HSET', KEYS[DRAIN_RATE], 'idle', 1) end
if ARGV[5] == '1' or math.abs(now - tonumber(since or 0)) >= MEASURE_MS then measure(now, ARGV[5] == '1') end
-- A grant that nobody uses is taken back by the next call.
if has_waiters() then
  admit_waiters(now, waiting())
  sooner(LINE_MS)
end

-- Many do not look at once.
local function apart()
  return tonumber(string.sub(redis.sha1hex(consumer), 1, 4), 16) / 65536 * math.min(1000, 20 * redis.call('ZCARD', KEYS[CONSUMERS]))
end

-- The next lease to run out: the first consumer to look then returns what was in flight under it.
local next_leases = redis.call('ZRANGE', KEYS[CONSUMERS], 0, 1, 'WITHSCORES')
local of_another = next_leases[1] == consumer and 3 or 1
if next_leases[of_another] then
  sooner(math.max(1, tonumber(next_leases[of_another + 1]) - now + 1 + apart()))
end

local first = redis.call('ZRANGE', KEYS[DELAYED], 0, 0, 'WITHSCORES')
if first[2] then
  -- A process that watches wakes one consumer when it is due; the others look after that, lest it was killed.
  local ms = tonumber(first[2]) - now
  sooner(ms > 0 and is_watched() and ms + WATCHED_MS + apart() or ms)
end
reply[4] = next_ms
return reply
