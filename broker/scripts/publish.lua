-- Publish messages to one queue, as many as its bound leaves room for, in order.
--
-- KEYS  the queue's twelve (see _common.lua), 13 batch hash or '' , 14 prefix of the claims of `once`
-- ARGV  1 policy: 'block' and 'reject' refuse what does not fit, 'shed' buries the oldest, 'exempt' has no bound
--       2 priority index   3 key prefix   then for each message five:
--       message, id, due ms or '', name of the claim or '', ms the claim lasts
-- Returns {now ms, depth after, bound, answers...}: for each message 'taken', 'full', 'closed' (the batch takes
--       nothing more) or the id of the task that holds the claim, behind 'duplicate:'.
--
-- A message that is not taken leaves nothing behind: no claim, no count.

local policy, priority, prefix = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now, ready = now_ms(), depth()
local bound = limit('bound', 0)
local delayed_bound = limit('delayed_bound', 0)
local batch, taken, delayed, earliest = KEYS[13], 0, 0, nil
local answers = {now, 0, bound}
local pushed = {}

local function flush()
  if #pushed > 0 then
    redis.call('LPUSH', KEYS[READY + priority], unpack(pushed))
    pushed = {}
  end
end

local function shed_oldest()
  flush()
  for i = READY + STEPS - 1, READY, -1 do
    local oldest = redis.call('RPOP', KEYS[i])
    if oldest then
      forget_deliveries(oldest)
      bury_unread(i - READY, oldest, 'shed', 0, prefix, now)
      count('shed', 1)
      ready = ready - 1
      return
    end
  end
end

local function has_room(due)
  if policy == 'exempt' then return true end
  if due then return delayed_bound == 0 or redis.call('ZCARD', KEYS[DELAYED]) < delayed_bound end
  if bound == 0 or ready < bound then return true end
  if policy ~= 'shed' then return false end
  shed_oldest()
  return true
end

local open = batch == '' or redis.call('HMGET', batch, 'opened_at', 'closed_at')
local closed = batch ~= '' and (not open[1] or open[2]) and policy ~= 'exempt'

for i = 4, #ARGV, 5 do
  local message, id, due, claim = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local owner = claim ~= '' and redis.call('GET', KEYS[14] .. claim)
  if closed then
    answers[#answers + 1] = 'closed'
  elseif owner then
    answers[#answers + 1] = 'duplicate:' .. owner
  elseif not has_room(due and due > now and due or nil) then
    answers[#answers + 1] = 'full'
  else
    if claim ~= '' then redis.call('SET', KEYS[14] .. claim, id, 'PX', ARGV[i + 4]) end
    if due and due > now then
      redis.call('ZADD', KEYS[DELAYED], due, priority .. message)
      delayed = delayed + 1
      if not earliest or due < earliest then earliest = due end
    else
      pushed[#pushed + 1] = message
      ready = ready + 1
      if #pushed == 1000 then flush() end
    end
    taken = taken + 1
    answers[#answers + 1] = 'taken'
  end
end
flush()

local refused = #answers - 3 - taken
if taken > 0 then
  count('published', taken)
  if batch ~= '' then
    redis.call('HINCRBY', batch, 'sent', taken)
    redis.call('HSET', batch, 'fed_at', now)
    keep_batch(batch, UNFINISHED_MS)
  end
  if ready > (tonumber(redis.call('HGET', KEYS[COUNTERS], 'high_water') or 0)) then
    redis.call('HSET', KEYS[COUNTERS], 'high_water', ready)
  end
  if taken > delayed then wake(1) end
  -- Who sleeps until a later message is due must learn of an earlier one.
  if earliest and tonumber(redis.call('ZRANGE', KEYS[DELAYED], 0, 0, 'WITHSCORES')[2]) >= earliest then
    wake(math.min(redis.call('ZCARD', KEYS[CONSUMERS]), 100))
  end
end
count('refused', refused)
answers[2] = ready
return answers
