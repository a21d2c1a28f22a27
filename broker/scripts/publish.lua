-- Publish messages to one queue, in order, as many as its bound has room for.
--
-- KEYS  the queue's fifteen (see _queue.lua), 16 batch hash, or KEYS[1] for no batch (a cluster tests the slot of each key)
-- ARGV  1 policy: 'block' and 'reject' refuse messages that do not fit, 'shed' makes the oldest a dead letter,
--         'caller_runs' delivers the first one that does not fit to the caller, 'exempt' ignores the bound
--       2 priority index   3 key prefix
--       4 ticket of a producer (_admission.lua) or ''   5 '1' to join the line if a message does not fit;
--         else the ticket leaves the line
--       6 name of the caller as a consumer, or ''   7 its lease, ms   then for each message six:
--       message, id, due ms or '', unique key or '', ms the unique key lasts (0: as long as the task), deadline ms or ''
-- Returns {now ms, depth afterwards, bound, drain rate (messages a second), 'paused' or '' (not measured, or the
--       queue has no consumer), answers...}. The answer for each message is
--       'taken', 'full', 'full:delayed' (too many delayed messages), 'closed' (the batch is closed), 'duplicate:' and the
--       id of the task that has the unique key, 'late:' and the ms until the pool would start it (after its deadline),
--       or 'run:' and the token of its delivery to the caller.
--
-- A message that is not taken changes nothing: its unique key is not set, and its batch does not count it. The unique key is
-- tested before the batch and the room: a producer that got no reply sends again, and is told of the task that was accepted.

local policy, priority, prefix, ticket = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
-- In most calls none of these keys exists, and one command shows it: nothing is put aside, and no producer waits.
local is_plain = redis.call('EXISTS', aside_key(), KEYS[WAITERS], called_key()) == 0
local now, ready = now_ms(), is_plain and depth() or waiting()
local limits = limit_texts('bound', 'delayed_bound')
local bound, delayed_bound = bound_in_messages(limits[1]), tonumber(limits[2] or 1000000)
local batch = KEYS[16] == KEYS[1] and '' or KEYS[16]
local answers = {now, 0, bound, ''}
local taken, duplicates, delayed, given, full = 0, 0, 0, 0, 0  -- numbers of messages
local pushed, earliest = {}, nil  -- messages for the ready list that are not written yet; the earliest due time

-- Room ----------------------------------------------------------------------------------------------------------
local has_line = not is_plain and policy ~= 'exempt' and policy ~= 'shed' and has_waiters()
local room, granted = bound == 0 and math.huge or bound - ready, nil
if has_line and bound > 0 then
  local others, own = reserved_room(ticket, now)
  local free = redis.call('EXISTS', KEYS[WAITERS]) == 0 and room - others or 0
  granted, room = own, math.min(room, math.max(own or 0, free))
end

local function flush()
  if #pushed > 0 then
    redis.call('LPUSH', KEYS[READY + priority], unpack(pushed))
    pushed = {}
  end
end

-- Make the oldest message of the lowest priority a dead letter; if none is ready, one that was put aside. The first write
-- could need memory, so a server that is out of memory refuses the script before anything is shed.
local function shed_oldest()
  count('shed', 1)
  flush()
  for i = READY + STEPS - 1, READY, -1 do
    local oldest = redis.call('RPOP', KEYS[i])
    if oldest then
      forget_deliveries(oldest)
      dead_letter_undecoded(i - READY, oldest, 'shed', 0, prefix, now)
      ready = ready - 1
      return
    end
  end
  if shed_aside(prefix, now) then ready = ready - 1 end
end

-- Return the answer to a message that does not fit, or nil if there is room. Under 'shed' make room.
local function refusal(due)
  if policy == 'exempt' then return nil end
  if due then
    return delayed_bound > 0 and redis.call('ZCARD', KEYS[DELAYED]) >= delayed_bound and 'full:delayed' or nil
  end
  if room >= 1 then return nil end
  if policy ~= 'shed' then return 'full' end
  shed_oldest()
end

-- Deadlines: the time that the pool needs for all messages before this one ------------------------------------------
local drain_rate

local function ms_until_start()
  drain_rate = drain_rate or redis.call('HMGET', KEYS[DRAIN_RATE], 'rate', 'held', 'idle')
  local rate, held, idle = unpack(drain_rate)
  local ahead = #pushed
  for i = READY, READY + priority do ahead = ahead + redis.call('LLEN', KEYS[i]) end
  rate = tonumber(rate or 0)
  if rate == 0 or (ahead == 0 and idle) then return 0 end
  return math.floor((ahead + tonumber(held or 0)) / rate * 1000)
end

-- Return the answer to a message that would start after its deadline, or nil.
local function lateness(deadline, due)
  if not deadline then return nil end
  local wait = due and due - now or ms_until_start()
  return now + wait >= deadline and 'late:' .. wait or nil
end

-- Taking --------------------------------------------------------------------------------------------------------
local function take(message, due)
  if due then
    redis.call('ZADD', KEYS[DELAYED], due, priority .. message)
    delayed = delayed + 1
    if not earliest or due < earliest then earliest = due end
  else
    pushed[#pushed + 1] = message
    ready, room = ready + 1, room - 1
    if #pushed == 1000 then flush() end
  end
  return 'taken'
end

-- Put a message in flight for the caller, under a lease. If the caller dies, the lease expires and the message is redelivered.
local function deliver_to_caller(message)
  local token = redis.call('HINCRBY', KEYS[COUNTERS], 'fetched', 1) .. '/' .. priority
  redis.call('HSET', KEYS[IN_FLIGHT] .. ARGV[6], token, message)
  redis.call('ZADD', KEYS[CONSUMERS], now + tonumber(ARGV[7]), ARGV[6])
  local longest = redis.call('HGET', KEYS[DRAIN_RATE], 'longest_lease')
  if tonumber(ARGV[7]) > tonumber(longest or 0) then redis.call('HSET', KEYS[DRAIN_RATE], 'longest_lease', ARGV[7]) end
  given = given + 1
  return 'run:' .. token
end

local is_closed = false
if batch ~= '' and policy ~= 'exempt' then
  local opened_at, closed_at = unpack(redis.call('HMGET', batch, 'opened_at', 'closed_at'))
  is_closed = not opened_at or closed_at
end

-- Accept a message or refuse it, and return the answer.
local function answer(message, id, due, unique, unique_ms, deadline)
  local owner = unique ~= '' and redis.call('GET', KEYS[UNIQUE] .. unique)
  if owner then
    duplicates = duplicates + 1
    return 'duplicate:' .. owner
  end
  if is_closed then return 'closed' end
  due = due and due > now and due or nil
  local refused = lateness(deadline, due) or refusal(due)
  local is_for_caller = refused == 'full' and policy == 'caller_runs' and given == 0
  if refused and not is_for_caller then
    if refused == 'full' then full = full + 1 end
    return refused
  end
  if unique ~= '' then
    local kept = unique_ms > 0 and unique_ms or UNIQUE_KEPT_MS + (due and due - now or 0)
    redis.call('SET', KEYS[UNIQUE] .. unique, id, 'PX', kept)
  end
  if not due and policy == 'caller_runs' and room < 1 then return deliver_to_caller(message) end
  return take(message, due)
end

for i = 8, #ARGV, 6 do
  local text = answer(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]))
  answers[#answers + 1] = text
  if text == 'taken' or string.sub(text, 1, 4) == 'run:' then taken = taken + 1 end
end
flush()

-- Counting ------------------------------------------------------------------------------------------------------
if taken > 0 then
  count('published', taken)
  count('caller_runs', given)
  if batch ~= '' then
    redis.call('HINCRBY', batch, 'sent', taken)
    redis.call('HSET', batch, 'fed_at', now)
    extend_batch_expiry(batch, UNFINISHED_MS)
  end
  if ready > (tonumber(redis.call('HGET', KEYS[COUNTERS], 'high_water') or 0)) then
    redis.call('HSET', KEYS[COUNTERS], 'high_water', ready)
  end
  if taken > delayed + given then wake(1) end
  -- If no process watches, consumers that wait until a later message is due must be woken for an earlier one.
  if earliest and not is_watched() and tonumber(redis.call('ZRANGE', KEYS[DELAYED], 0, 0, 'WITHSCORES')[2]) >= earliest then
    wake(math.min(redis.call('ZCARD', KEYS[CONSUMERS]), 100))
  end
end
count('duplicates', duplicates)
count('refused', #answers - 4 - taken - duplicates)

-- Admission ------------------------------------------------------------------------------------------------------
if ticket ~= '' and full > 0 and ARGV[5] == '1' then
  redis.call('HDEL', called_key(), ticket)
  redis.call('ZREM', late_key(), ticket)
  join_line(ticket, granted and taken == 0)
  admit_waiters(now, ready)
elseif has_line then
  if ticket ~= '' then leave_line(ticket) end
  admit_waiters(now, ready)
end

if full > 0 then
  local has_consumer = redis.call('ZCOUNT', KEYS[CONSUMERS], now, '+inf') > 0
  answers[4] = limit_texts('paused')[1] == '1' and 'paused' or has_consumer and redis.call('HGET', KEYS[DRAIN_RATE], 'rate') or ''
end
answers[2] = ready
return answers
