-- Settle the finished deliveries of a consumer, and fetch the messages that it has room for, in one step.
--
-- KEYS  the queue's fifteen (see _queue.lua), 16 bucket of the rate limit, 17 control epoch
-- ARGV  1 consumer   2 lease ms   3 credit: the messages that it has room for   4 its free slots
--       5 '1' to register a new consumer   6 key prefix   7 number of this call, which the consumer counts
--       8 the kinds that the consumer has (_aside.lua), in its first call under a name; else ''
--       then for each outcome nine: token, action, batch key or '', task id, state, detail (JSON), due ms, text, unique key
--       that is freed when the task ends or ''
--   actions  'settle' the task has ended; `state` is counted in its batch, unless it is '': then it goes on as another message
--            'drop' the task has ended and was not run
--            'bury' the message becomes a dead letter; `text` is the reason
--            'replace' a retry: the message `text` replaces it, due at `due ms`   'delay' the same message is due later.
--            If the task was cancelled meanwhile, it has ended as cancelled instead of these two
--            'aside' the consumer does not have its kind, `text`: another may take it until `due ms` (_aside.lua). Then it
--            expires if `state` is 'expired', else it becomes a dead letter with `detail`
--            'return' it returns to the head of the queue, and no delivery is counted
--            'notice bury', 'notice settle', 'notice drop': the result backend did not take how the task ended
--            'redeliver' it returns to the head, counted   'requeue' it returns to the end, counted
-- Returns {now ms, lease (1 in force, 0 lost, 2 in force although the list of consumers was deleted), late, next ms, epoch,
--       limited (1 if messages wait for a permit of the in-flight limit), then for each message three: token, deliveries
--       before this one, message}. `late` is the number of outcomes of messages that this consumer did not have in flight any
--       more. `next` is when to fetch again: -1 after a wake token, 0 at once, else in this many ms, because a message is due
--       or another consumer's lease expires then.
--
-- An outcome is carried out only if this consumer has the message in flight. If the lease is lost, nothing is settled and
-- nothing is fetched.

local consumer, lease, credit, slots, prefix = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6]
local now = now_ms()
local own_messages = KEYS[IN_FLIGHT] .. consumer
local epoch = redis.call('GET', KEYS[17]) or '0'

-- In most calls none of these keys exists, and one command shows it.
local is_plain = redis.call('EXISTS', aside_key(), KEYS[WAITERS], called_key(), KEYS[DELIVERIES]) == 0
local has_aside = not is_plain and redis.call('EXISTS', aside_key()) == 1
if is_plain then counted = false end

if #ARGV > 8 or has_aside then test_whether_full() end
write_although_full()
local lease_state = ARGV[5] == '1' and 1 or lease_of(consumer)
if lease_state == 0 then
  count('late', (#ARGV - 8) / 9)
  return {now, 0, (#ARGV - 8) / 9, -1, epoch, 0}
end
redis.call('ZADD', KEYS[CONSUMERS], now + lease, consumer)
if ARGV[8] ~= '' then announce_kinds(consumer, ARGV[8]) end

-- Settle ------------------------------------------------------------------------------------------------------
local late, settled, landed = 0, 0, 0  -- landed: messages that were in flight and are not any more
local kinds_put_aside = {}

-- Return the token of the rate limit of a message that was fetched and not run.
local function refund()
  if redis.call('EXISTS', KEYS[16]) == 1 then redis.call('HINCRBYFLOAT', KEYS[16], 'tokens', 1) end
end

-- True if a task or its batch is cancelled. This is tested in the step that makes it a delayed message: a cancellation before
-- that is seen here, and one after that finds the delayed message.
local function is_cancelled(id, batch)
  for _, name in ipairs({id, batch}) do
    if tonumber(redis.call('ZSCORE', prefix .. 'millpond:cancelled', name) or 0) > now then return true end
  end
end

-- Leave a notice of a task that has failed, was cancelled or has expired, and whose result backend does not know it.
local function leave_notice_of_end(message, state, detail, reason)
  if state ~= 'failed' and state ~= 'cancelled' and state ~= 'expired' then return end
  local headers, own = headers_of(message)
  local line = state == 'failed' and string.gsub(error_of(detail), '%c', ' ') or ''
  leave_notice(message, headers, own, state, state == 'failed' and line == '' and reason or line)
end

local function settle(message, token, action, batch, id, state, detail, due, text, unique)
  local priority = tonumber(string.match(token, '/(%d)$'))
  if (action == 'replace' or action == 'delay' or action == 'aside') and is_cancelled(id, batch) then
    action, state, detail = 'settle', 'cancelled', '{}'
    local headers, own = headers_of(message)
    leave_notice(message, headers, own, 'cancelled', '')
  end
  if string.sub(action, 1, 7) == 'notice ' then
    action = string.sub(action, 8)
    leave_notice_of_end(message, state, detail, text)
  end
  if action == 'return' or action == 'drop' or action == 'aside' then refund() end
  if action == 'settle' or action == 'drop' then
    forget_deliveries(message)
    settled = settled + 1
    if state == 'expired' then count('expired', 1) end
    if state ~= '' then free_unique_key(unique, id) end
    record(batch, id, state, detail, now)
  elseif action == 'bury' then
    local digest = redis.sha1hex(message)
    local before = tonumber(redis.call('HGET', KEYS[DELIVERIES], digest) or 0)
    redis.call('HDEL', KEYS[DELIVERIES], digest)
    dead_letter(priority, message, text, detail, before + 1, batch, id, now)
    free_unique_key(unique, id)
  elseif action == 'replace' then
    forget_deliveries(message)
    redis.call('ZADD', KEYS[DELAYED], due, priority .. text)
    count('retried', 1)
  elseif action == 'delay' then
    redis.call('ZADD', KEYS[DELAYED], due, priority .. message)
  elseif action == 'aside' then
    if put_aside(priority, message, text, due, state == 'expired' and 'e' or 'd', detail) then
      kinds_put_aside[text] = true
    else
      dead_letter(priority, message, 'unknown kind', detail, 1, batch, id, now)
      local headers, own = headers_of(message)
      leave_notice(message, headers, own, 'failed', 'unknown kind')
      free_unique_key(unique, id)
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
  local messages = redis.call('HMGET', own_messages, unpack(tokens))
  redis.call('HDEL', own_messages, unpack(tokens))
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
for kind in pairs(kinds_put_aside) do wake_consumers_with(kind, now) end

-- Sweep: messages under expired leases are redelivered ------------------------------------------------------------
-- A lease that expired in a silence (see record_call) gets some time to be renewed, but only once. Half a millisecond in its
-- new expiry marks that.
local since, idle, longest, silent_till = record_call(now, lease)
local leases = redis.call('ZRANGE', KEYS[CONSUMERS], 0, 1, 'WITHSCORES')
if leases[1] and tonumber(leases[2]) < now then
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
  leases = redis.call('ZRANGE', KEYS[CONSUMERS], 0, 1, 'WITHSCORES')
end

-- End the messages put aside whose time is over.
has_aside = has_aside or next(kinds_put_aside) ~= nil
local over, are_more_over = 0, false
if has_aside then over, are_more_over = end_aside(prefix, now) end
if over > 0 then leave_out_of_rate(over) end

-- Promote: delayed messages that are due join the end of their queue ------------------------------------------------
-- But not if the next call must end more messages that were put aside: these are due too, and must not be promoted.
local first_delayed = redis.call('ZRANGE', KEYS[DELAYED], 0, 0, 'WITHSCORES')
if first_delayed[2] and tonumber(first_delayed[2]) <= now and not are_more_over then
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[DELAYED], '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[DELAYED], entry)
    redis.call('LPUSH', KEYS[READY + tonumber(string.sub(entry, 1, 1))], string.sub(entry, 2))
  end
  first_delayed = redis.call('ZRANGE', KEYS[DELAYED], 0, 0, 'WITHSCORES')
end

-- Fetch -----------------------------------------------------------------------------------------------------
local LINE_MS = 1000  -- how often consumers call while producers wait for admission
local WATCHED_MS = 50
local next_ms = -1

-- Fetch again in this many ms at the latest.
local function sooner(ms)
  ms = math.max(0, math.ceil(ms))
  if next_ms < 0 or ms < next_ms then next_ms = ms end
end

local texts = limit_texts('paused', 'rate', 'in_flight', 'message_bytes', 'probe')
local paused, rate, in_flight_limit = texts[1] == '1', tonumber(texts[2] or 0), tonumber(texts[3] or 0)

-- A probe (broker/stats/probe.py) leaves slots idle by a lower limit, 'most@until ms', which ends by itself.
local most, till = string.match(texts[5] or '', '^(%d+)@(%d+)$')
if till and now < tonumber(till) and (in_flight_limit == 0 or tonumber(most) < in_flight_limit) then
  in_flight_limit = tonumber(most)
  sooner(tonumber(till) - now)
end

-- Under an in-flight limit each call stores the number of messages in flight, with the number of messages fetched so far. If
-- that has changed, as by the delivery to a caller or a fetch of an older version, the stored number is wrong and they are
-- counted. A release deletes it. It is also counted anew once a second, because an older version settles without a change.
local COUNT_KEPT_MS = 1000
local in_flight_count, known_since = 0, nil

-- The number of ready messages: of each priority step, and of all.
local lengths, ready = {}, 0
for step = 0, STEPS - 1 do
  lengths[step] = redis.call('LLEN', KEYS[READY + step])
  ready = ready + lengths[step]
end

-- Return the number of messages in flight, and when they were counted (ms).
local function in_flight_now()
  local n, fetched, at = string.match(redis.call('HGET', KEYS[DRAIN_RATE], 'flying') or '', '^(%d+) (%d+) (%d+)$')
  local age = now - tonumber(at or 0)
  if n and age >= 0 and age < COUNT_KEPT_MS and fetched == (redis.call('HGET', KEYS[COUNTERS], 'fetched') or '0') then
    n = tonumber(n) - landed
    if n >= 0 then return n, tonumber(at) end
  end
  return total_in_flight(), now
end

local is_to_fetch = credit > 0 and not paused and (ready > 0 or has_aside)
if in_flight_limit > 0 and (is_to_fetch or landed > 0) then in_flight_count, known_since = in_flight_now() end

-- Return how many messages the limits of the queue allow to fetch now. Under a limit only free slots are filled, so that no
-- consumer has permits in its prefetch that another could use.
local function allowance()
  if paused then return 0 end
  if rate == 0 and in_flight_limit == 0 then return credit end
  local allowed = math.min(credit, slots)
  if in_flight_limit > 0 and known_since then allowed = math.min(allowed, math.max(0, in_flight_limit - in_flight_count)) end
  if rate > 0 and allowed > 0 then
    local burst = limit('burst', math.max(1, rate))
    local left, left_at = unpack(redis.call('HMGET', KEYS[16], 'tokens', 'at'))
    local tokens = math.min(burst, tonumber(left or burst) + math.max(0, now - tonumber(left_at or now)) * rate / 1000)
    redis.call('HSET', KEYS[16], 'tokens', tostring(tokens), 'at', now)
    if tokens < 1 then sooner((1 - tokens) / rate * 1000) end
    allowed = math.min(allowed, math.floor(tokens))
  end
  return allowed
end

-- The most arguments of one redis.call, because Lua's stack is bounded.
local MOST = 1000

local reply = {now, lease_state, late, 0, epoch, 0}
local allowed = credit > 0 and allowance() or 0
local took, kept_all = 0, 0  -- messages removed from the queue, and those of them that are in flight now

-- Put messages of a priority step in flight, and into the reply. Too long ones become dead letters.
local function take_messages(messages, step, max_bytes)
  local last, kept = redis.call('HINCRBY', KEYS[COUNTERS], 'fetched', #messages), {}
  for i, message in ipairs(messages) do
    if #message > max_bytes then
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
  for from = 1, #kept, MOST do redis.call('HSET', own_messages, unpack(kept, from, math.min(#kept, from + MOST - 1))) end
  took = took + #messages
end

if allowed > 0 then
  local max_bytes = tonumber(texts[4] or 10000000)
  local from_aside, are_more = {}, false
  if has_aside then from_aside, are_more = take_aside(consumer, allowed) end
  for step = 0, STEPS - 1 do
    if from_aside[step] then take_messages(from_aside[step], step, max_bytes) end
  end
  if are_more then sooner(0) end
  for step = 0, STEPS - 1 do
    local messages = took < allowed and lengths[step] > 0 and redis.call('RPOP', KEYS[READY + step], allowed - took)
    if messages then
      take_messages(messages, step, max_bytes)
      ready = ready - #messages
    end
  end
  if took > 0 and rate > 0 then redis.call('HINCRBYFLOAT', KEYS[16], 'tokens', -took) end
end

if known_since then
  local fetched = redis.call('HGET', KEYS[COUNTERS], 'fetched') or '0'
  redis.call('HSET', KEYS[DRAIN_RATE], 'flying', string.format('%d %s %d', in_flight_count + kept_all, fetched, known_since))
end

-- A message that waits for a permit is fetched by the call that settles another one. No consumer is woken for it.
if ready > 0 and in_flight_limit > 0 and in_flight_count + took >= in_flight_limit then
  reply[6] = 1
elseif ready > 0 and took == allowed and allowed > 0 then
  wake(1)
  sooner(0)
elseif ready > 0 and #ARGV > 8 then
  wake(1)  -- a permit of an in-flight limit may have come free for another consumer
end
if (paused or took < slots and ready == 0) and not idle then redis.call('HSET', KEYS[DRAIN_RATE], 'idle', 1) end
if ARGV[5] == '1' or math.abs(now - tonumber(since or 0)) >= MEASURE_MS then measure(now, ARGV[5] == '1') end
-- While producers wait, consumers call once a second, so that grants that are not used are revoked.
if not is_plain and has_waiters() then
  admit_waiters(now, waiting())
  sooner(LINE_MS)
end

-- Return a delay in ms that differs by consumer, so that many do not call at once.
local function apart()
  return tonumber(string.sub(redis.sha1hex(consumer), 1, 4), 16) / 65536 * math.min(1000, 20 * redis.call('ZCARD', KEYS[CONSUMERS]))
end

-- When the next lease of another consumer expires, the first call redelivers its messages.
local of_another = leases[1] == consumer and 3 or 1
if leases[of_another] then
  sooner(math.max(1, tonumber(leases[of_another + 1]) - now + 1 + apart()))
end

if took > 0 and has_aside then first_delayed = redis.call('ZRANGE', KEYS[DELAYED], 0, 0, 'WITHSCORES') end
if first_delayed[2] then
  -- A process that watches wakes one consumer when it is due. All fetch a little later, in case that process was killed.
  local ms = tonumber(first_delayed[2]) - now
  sooner(ms > 0 and is_watched() and ms + WATCHED_MS + apart() or ms)
end
reply[4] = next_ms
return reply
