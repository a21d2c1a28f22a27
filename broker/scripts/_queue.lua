-- The keys of a queue and the functions on its messages. broker/scripts/__init__.py puts this file, _drain_rate.lua and
-- _admission.lua before every script.
--
-- KEYS of a queue, always these fifteen in this order (from broker/keys.py):
--   1-4 ready    lists, one a priority step (0, 3, 6, 9); a message enters at the left and leaves at the right
--   5 delayed    sorted set, due time in ms -> priority index (one digit) and message
--   6 dead       stream of dead letters
--   7 consumers  sorted set, consumer -> lease expiry in ms
--   8 deliveries hash, SHA-1 of a message -> deliveries that were not settled
--   9 limits     hash of the queue's limits
--  10 counters   hash of totals
--  11 wake       list of tokens, one for each consumer that should look
--  12 in flight  prefix of the hashes of messages in flight: prefix .. consumer, token -> message
--  13 waiters    sorted set of the producers that wait for admission (_admission.lua)
--  14 unique     prefix of the unique keys: prefix .. key, a string, the id of the task that has it
--  15 drain rate hash of the measured drain rate (_drain_rate.lua)
--
-- A message is in exactly one of: a ready list, delayed, an in-flight hash, dead; or it is settled.
-- A token identifies a delivery, 'sequence/call/priority index': `call` is counted by the consumer and never goes back. So a
-- consumer gets no token twice, also from a server that forgot some deliveries. One of a caller or of an older version has
-- no call.

local READY, DELAYED, DEAD, CONSUMERS, DELIVERIES = 1, 5, 6, 7, 8
local LIMITS, COUNTERS, WAKE, IN_FLIGHT = 9, 10, 11, 12
local WAITERS, UNIQUE, DRAIN_RATE = 13, 14, 15
local STEPS = 4

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- A server that is out of memory refuses a script whose first write may grow. Scripts that settle and renew free memory or
-- keep leases, so they must run: each begins with this write, which cannot grow.
-- Such a script may pass the server's limit of memory by the little that it counts, not by results and tracebacks: `full`
-- tells it. The write that tells may grow and writes nothing; after another one the server would not refuse it.
local full = false

local function write_although_full()
  local refused = redis.pcall('SETRANGE', KEYS[COUNTERS] .. ':none', 0, '')
  full = type(refused) == 'table' and refused.err ~= nil and string.find(refused.err, 'OOM', 1, true) ~= nil
  redis.call('HDEL', KEYS[COUNTERS], '')
end

local function count(counter, n)
  if n ~= 0 then redis.call('HINCRBY', KEYS[COUNTERS], counter, n) end
end

-- The detail of a result or a dead letter, or the little of it that a full server has room for; the reader says so.
local function that_fits(detail)
  if not full or #detail < 100 then return detail end
  count('details_dropped', 1)
  local ok, decoded = pcall(cjson.decode, detail)
  local told = ok and type(decoded) == 'table' and type(decoded.error) == 'string' and decoded.error or ''
  return cjson.encode({dropped = true, error = told ~= '' and string.sub(told, 1, 200) or nil})
end

-- A limit set at run time wins over that of the pools table; zero is no limit.
local function limit(name, default)
  local l = redis.call('HMGET', KEYS[LIMITS], name, 'table:' .. name)
  return tonumber(l[1] or l[2] or default)
end

-- Several limits at once, as text; nil for one that is not set.
local function limit_texts(...)
  local names = {}
  for _, name in ipairs({...}) do
    names[#names + 1] = name
    names[#names + 1] = 'table:' .. name
  end
  local found, texts = redis.call('HMGET', KEYS[LIMITS], unpack(names)), {}
  for i = 1, #found, 2 do texts[#texts + 1] = found[i] or found[i + 1] end
  return texts
end

-- Forget how many messages are in flight: the next call under an in-flight limit counts them.
local function forget_flying() redis.call('HDEL', KEYS[DRAIN_RATE], 'flying') end

-- A consumer has its lease while it is listed (1). Where the list was deleted (2), what it has in flight shows that no other
-- took it over: a sweep removes both in one step. 0: it has none.
local function lease_of(consumer)
  if redis.call('ZSCORE', KEYS[CONSUMERS], consumer) then return 1 end
  if redis.call('EXISTS', KEYS[IN_FLIGHT] .. consumer) == 0 then return 0 end
  count('unlisted', 1)
  forget_flying()
  return 2
end

-- Note that a consumer with a lease of so many ms called or renewed. When nobody has for two fifths of the longest, the server or the network
-- was away, or the server's clock was set forward: leases that expired meanwhile may be of the living. After the clock was set
-- back, leases would last for as long as it went back: none lasts longer than the longest one taken now. Returns when the
-- measurement of the drain rate began, whether a slot was idle, the longest lease (ms), and when the last silence ended.
local function speak(now, lease)
  local p = redis.call('HMGET', KEYS[DRAIN_RATE], 'since', 'idle', 'longest_lease', 'silent_till', 'spoken_at')
  local before, longest = tonumber(p[5] or now), math.max(lease, tonumber(p[3] or 0))
  local silent_till = now - before > longest * 0.4 and now or tonumber(p[4] or 0)
  if now < before then
    silent_till = 0
    for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[CONSUMERS], '(' .. now + longest, '+inf')) do
      redis.call('ZADD', KEYS[CONSUMERS], now + longest, consumer)
    end
  end
  redis.call('HSET', KEYS[DRAIN_RATE], 'spoken_at', now, 'longest_lease', longest, 'silent_till', silent_till)
  return p[1], p[2], longest, silent_till
end

local function depth()
  local n = 0
  for i = READY, READY + STEPS - 1 do n = n + redis.call('LLEN', KEYS[i]) end
  return n
end

-- One token is enough for any number of messages: a consumer that leaves messages behind wakes the next one.
local function wake(n)
  local missing = n - redis.call('LLEN', KEYS[WAKE])
  for _ = 1, missing do redis.call('LPUSH', KEYS[WAKE], 1) end
  if missing > 0 then redis.call('PEXPIRE', KEYS[WAKE], 60000) end
end

-- True if some process watches the ready lists and the delayed messages (consume/watcher.py).
local function is_watched()
  local own = string.sub(KEYS[WAKE], 1, -5)
  return redis.call('EXISTS', own .. 'lookout:1', own .. 'lookout:2') > 0
end

-- A message returns to the head of its queue: it is the next to be fetched.
local function return_to_head(priority, message)
  redis.call('RPUSH', KEYS[READY + priority], message)
end

-- Remove the messages that a consumer has in flight, except the tokens in `keep`, and call pass_on(priority, message) for
-- each. The newest comes first, so that the oldest is at the head of the queue afterwards. Returns their number.
local function release(in_flight, pass_on, keep)
  local pairs_, messages = redis.call('HGETALL', in_flight), {}
  for i = 1, #pairs_, 2 do
    if not (keep and keep[pairs_[i]]) then
      messages[#messages + 1] = {tonumber(string.match(pairs_[i], '^(%d+)/')), pairs_[i], pairs_[i + 1]}
    end
  end
  if #messages > 0 then forget_flying() end
  table.sort(messages, function(a, b) return a[1] > b[1] end)
  for _, m in ipairs(messages) do
    redis.call('HDEL', in_flight, m[2])
    pass_on(tonumber(string.match(m[2], '/(%d)$')), m[3])
  end
  return #messages
end

-- A very long message without its body, which is base64 and not needed here: decoding it would block the server.
local function without_body(message)
  local _, from = string.find(message, '"body": ?"')
  local to = from and string.find(message, '"', from + 1, true)
  return to and string.sub(message, 1, from) .. string.sub(message, to) or message
end

-- The headers of a message, and Millpond's own header. Messages of foreign clients have no own header; a message whose
-- headers are too long to decode here is treated like those.
local function headers_of(message)
  if #message > 20000000 then message = without_body(message) end
  if #message > 20000000 then return {}, {} end
  local ok, decoded = pcall(cjson.decode, message)
  if not ok or type(decoded) ~= 'table' or type(decoded.headers) ~= 'table' then return {}, {} end
  local own = decoded.headers.millpond
  return decoded.headers, type(own) == 'table' and own or {}
end

-- False if a message cannot contain this id: a quick test before its headers are decoded. Ids with characters that JSON
-- encoders write in different ways are not tested.
local function may_contain_id(message, id)
  return string.find(id, '[^%w%-_.:]') or string.find(message, id, 1, true)
end

-- The record of an incomplete batch is kept for so long after the last send to it.
local UNFINISHED_MS = 30 * 24 * 3600 * 1000

local function extend_batch_expiry(batch, ms)
  redis.call('PEXPIRE', batch, ms)
  redis.call('PEXPIRE', batch .. ':results', ms)
end

-- Replace a placeholder by a value. Its quotes are escaped within JSON strings, so it is found only where it is a name.
local function fill(message, name, value)
  local from, to = string.find(message, '"' .. name .. '":-1', 1, true)
  if not from then return message end
  return string.sub(message, 1, to - 2) .. value .. string.sub(message, to + 1)
end

-- Send the batch callback with the batch's counts, regardless of its queue's bound. It is sent once: a batch that is
-- completed again, after a requeue, has sent it.
local function send_batch_callback(batch, now)
  local t = redis.call('HMGET', batch, 'then', 'then_key', 'then_wake', 'then_counters', 'then_sent_at')
  if not t[1] or t[5] then return end
  redis.call('HSET', batch, 'then_sent_at', now)
  local counts = redis.call('HMGET', batch, 'sent', 'succeeded', 'failed', 'cancelled', 'expired', 'opened_at',
    'closed_at', 'completed_at', 'cancelled_at')
  for i = 1, 9 do counts[i] = counts[i] or 0 end
  redis.call('LPUSH', t[2], fill(fill(t[1], 'at', now), 'counts', '[' .. table.concat(counts, ',') .. ']'))
  redis.call('HINCRBY', t[4], 'published', 1)
  if redis.call('LLEN', t[3]) == 0 then redis.call('LPUSH', t[3], 1) end
  redis.call('PEXPIRE', t[3], 60000)
end

local function complete_batch_if_done(batch, now)
  local b = redis.call('HMGET', batch, 'closed_at', 'completed_at', 'sent', 'settled', 'keep_ms')
  if not b[1] or b[2] or tonumber(b[3] or 0) ~= tonumber(b[4] or 0) then return end
  redis.call('HSET', batch, 'completed_at', now)
  send_batch_callback(batch, now)
  if b[5] then extend_batch_expiry(batch, b[5]) end
end

-- A unique key without a time of its own lasts as long as its task. This expiry is for tasks deleted by other means.
local UNIQUE_KEPT_MS = 30 * 24 * 3600 * 1000

-- Free a unique key when its task ends, so that it can be sent again; never the key of another task.
local function free_unique_key(name, id)
  if name ~= '' and redis.call('GET', KEYS[UNIQUE] .. name) == id then redis.call('DEL', KEYS[UNIQUE] .. name) end
end

-- Record the result of one task of a batch: count it, append it to the results, complete the batch with its last task.
local function record(batch, id, state, detail, now)
  if batch == '' or state == '' or redis.call('EXISTS', batch) == 0 then return end
  redis.call('HINCRBY', batch, state, 1)
  local settled = redis.call('HINCRBY', batch, 'settled', 1)
  redis.call('XADD', batch .. ':results', '*', 'id', id, 'state', state, 'detail', that_fits(detail))
  if settled == 1 then redis.call('PEXPIRE', batch .. ':results', UNFINISHED_MS) end
  complete_batch_if_done(batch, now)
end

-- Move a whole message to the dead letters. `detail` is a JSON object: error, traceback, times, worker.
local function dead_letter(priority, message, reason, detail, deliveries, batch, id, now)
  redis.call('XADD', KEYS[DEAD], '*', 'message', message, 'reason', reason, 'detail', that_fits(detail),
    'deliveries', deliveries, 'step', priority)
  count('dead', 1)
  redis.call('XTRIM', KEYS[DEAD], 'MAXLEN', '=', limit('dead_bound', 10000))
  redis.call('XTRIM', KEYS[DEAD], 'MINID', '=', now - limit('dead_keep_ms', 30 * 24 * 3600 * 1000))
  record(batch, id, 'failed', detail, now)
end

-- Keep what ended where no worker could tell its result backend, until one does (broker/celery/backend_notices.py): the newest
-- thousand, for a day after the last, each without its body where that is long. Millpond's own client asks for no result.
local UNTOLD_MOST, UNTOLD_BYTES, UNTOLD_MS = 1000, 100000, 24 * 3600 * 1000

local function leave_untold(message, headers, own, state, reason)
  if type(headers.id) ~= 'string' or headers.ignore_result == true and own.at then return end
  local key = KEYS[DEAD] .. ':untold'
  if #message > UNTOLD_BYTES then message = without_body(message) end
  redis.call('LPUSH', key, state .. ' ' .. reason .. '\n' .. message)
  redis.call('LTRIM', key, 0, UNTOLD_MOST - 1)
  redis.call('PEXPIRE', key, UNTOLD_MS)
end

local function dead_letter_undecoded(priority, message, reason, deliveries, prefix, now)
  local headers, own = headers_of(message)
  local batch = type(own.batch) == 'string' and prefix .. 'millpond:batch:{' .. own.batch .. '}' or ''
  local id = type(headers.id) == 'string' and headers.id or ''
  dead_letter(priority, message, reason, cjson.encode({error = reason}), deliveries, batch, id, now)
  leave_untold(message, headers, own, 'failed', reason)
  free_unique_key(type(own.once) == 'string' and own.once or '', id)
end

-- True if any message of this queue has counted deliveries; read once a call.
local counted
local function deliveries_count()
  if counted == nil then counted = redis.call('EXISTS', KEYS[DELIVERIES]) == 1 end
  return counted
end

-- A delivery ended without an outcome: make the message ready again, or a dead letter after too many deliveries.
local function redeliver(priority, message, prefix, now, to_back)
  local mark = redis.sha1hex(message)
  local deliveries = redis.call('HINCRBY', KEYS[DELIVERIES], mark, 1)
  counted = true
  if deliveries >= limit('max_deliveries', 5) then
    redis.call('HDEL', KEYS[DELIVERIES], mark)
    dead_letter_undecoded(priority, message, 'too many deliveries', deliveries, prefix, now)
  else
    if to_back then
      redis.call('LPUSH', KEYS[READY + priority], message)
    else
      return_to_head(priority, message)
    end
    count('redelivered', 1)
  end
end

local function forget_deliveries(message)
  if deliveries_count() then redis.call('HDEL', KEYS[DELIVERIES], redis.sha1hex(message)) end
end
