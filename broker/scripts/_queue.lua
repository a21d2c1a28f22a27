-- The keys of a queue and the functions on its messages. broker/scripts/__init__.py puts before each script the definitions
-- that it uses of this file, _drain_rate.lua, _admission.lua and _aside.lua, in this order.
--
-- KEYS of a queue, always these fifteen in this order (from broker/keys.py):
--   1-4 ready    lists, one a priority step (0, 3, 6, 9); a message enters at the left and leaves at the right
--   5 delayed    sorted set, due time in ms -> priority index (one digit) and message
--   6 dead       stream of dead letters
--   7 consumers  sorted set, consumer -> lease expiry in ms
--   8 deliveries hash, SHA-1 of a message -> deliveries that were not settled
--   9 limits     hash of the queue's limits
--  10 counters   hash of totals
--  11 wake       list of wake tokens, one for each consumer that should fetch
--  12 in flight  prefix of the hashes of messages in flight: prefix .. consumer, token -> message
--  13 waiters    sorted set of the producers that wait for admission (_admission.lua)
--  14 unique     prefix of the unique keys: prefix .. key, a string, the id of the task that has it
--  15 drain rate hash of the measured drain rate (_drain_rate.lua)
--
-- A message is in exactly one of: a ready list, delayed, an in-flight hash, dead; or it is settled.
-- A token identifies a delivery: 'sequence/call/priority index'. The consumer counts its calls, and its count never
-- decreases. So a consumer gets no token twice, even from a server that has forgotten some deliveries. A token of a caller,
-- or of an older version, has no call.

local READY, DELAYED, DEAD, CONSUMERS, DELIVERIES = 1, 5, 6, 7, 8
local LIMITS, COUNTERS, WAKE, IN_FLIGHT = 9, 10, 11, 12
local WAITERS, UNIQUE, DRAIN_RATE = 13, 14, 15
local STEPS = 4

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- A server that is out of memory refuses a script whose first write could need memory. Scripts that settle or renew must run
-- all the same, because they free memory or keep leases. So each begins with HDEL, which needs none.
local function write_although_full() redis.call('HDEL', KEYS[COUNTERS], '') end

-- Such a script may exceed the server's limit by its counters, but not by results and tracebacks: `full` is true then. A
-- write of no bytes shows whether the server is full. It comes before any other write: after one the server refuses nothing.
local full = false

local function test_whether_full()
  local reply = redis.pcall('SETRANGE', KEYS[COUNTERS] .. ':none', 0, '')
  full = type(reply) == 'table' and reply.err ~= nil and string.find(reply.err, 'OOM', 1, true) ~= nil
end

local function count(counter, n)
  if n ~= 0 then redis.call('HINCRBY', KEYS[COUNTERS], counter, n) end
end

-- Return the error in the detail (JSON) of a result or a dead letter, or ''.
local function error_of(detail)
  local ok, decoded = pcall(cjson.decode, detail)
  return ok and type(decoded) == 'table' and type(decoded.error) == 'string' and decoded.error or ''
end

-- Return the detail of a result or a dead letter. For a full server return the beginning of its error, with a mark.
local function detail_that_fits(detail)
  if not full or #detail < 100 then return detail end
  count('details_dropped', 1)
  local text = error_of(detail)
  return cjson.encode({dropped = true, error = text ~= '' and string.sub(text, 1, 200) or nil})
end

-- Return a limit as a number. One that was set at run time overrides that of the pools table. Zero means no limit.
local function limit(name, default)
  local at_run_time, of_table = unpack(redis.call('HMGET', KEYS[LIMITS], name, 'table:' .. name))
  return tonumber(at_run_time or of_table or default)
end

-- Return several limits at once, as texts; nil for one that is not set.
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

-- Forget the stored number of messages in flight. The next call under an in-flight limit counts them anew.
local function forget_in_flight_count() redis.call('HDEL', KEYS[DRAIN_RATE], 'flying') end

-- Return 1 if a consumer has a lease: it is listed. Return 2 if it has one although the list was deleted: it has messages in
-- flight, which are removed in the same step as an expired lease. Return 0 if it has none.
local function lease_of(consumer)
  if redis.call('ZSCORE', KEYS[CONSUMERS], consumer) then return 1 end
  if redis.call('EXISTS', KEYS[IN_FLIGHT] .. consumer) == 0 then return 0 end
  count('unlisted', 1)
  forget_in_flight_count()
  return 2
end

-- Record that a consumer with a lease of some ms called or renewed. If no consumer has done so for two fifths of the longest
-- lease, there was a silence: the server or the network was away, or the server's clock was set forward. Leases that expired
-- in it may belong to living consumers. After the clock was set back, leases would last longer by that time, so each is cut
-- to the longest lease from now on. Return when the measurement of the drain rate began, whether a slot was idle, the longest
-- lease (ms), and when the last silence ended.
local function record_call(now, lease)
  local since, idle, longest, silent_till, spoken_at =
    unpack(redis.call('HMGET', KEYS[DRAIN_RATE], 'since', 'idle', 'longest_lease', 'silent_till', 'spoken_at'))
  local before = tonumber(spoken_at or now)
  longest = math.max(lease, tonumber(longest or 0))
  silent_till = now - before > longest * 0.4 and now or tonumber(silent_till or 0)
  if now < before then
    silent_till = 0
    for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[CONSUMERS], '(' .. now + longest, '+inf')) do
      redis.call('ZADD', KEYS[CONSUMERS], now + longest, consumer)
    end
  end
  redis.call('HSET', KEYS[DRAIN_RATE], 'spoken_at', now, 'longest_lease', longest, 'silent_till', silent_till)
  return since, idle, longest, silent_till
end

-- Return the number of ready messages.
local function depth()
  local n = 0
  for i = READY, READY + STEPS - 1 do n = n + redis.call('LLEN', KEYS[i]) end
  return n
end

-- Push wake tokens until the list has n. One is enough for any number of messages: a consumer that leaves messages on the
-- queue wakes the next one.
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

-- Remove the messages of an in-flight hash, except those with a token in `keep`, and call return_message(priority, message)
-- for each. The newest comes first, so that the oldest is at the head of the queue afterwards. Return their number.
local function release(in_flight, return_message, keep)
  local entries, messages = redis.call('HGETALL', in_flight), {}
  for i = 1, #entries, 2 do
    local token = entries[i]
    if not (keep and keep[token]) then
      messages[#messages + 1] = {sequence = tonumber(string.match(token, '^(%d+)/')), token = token, text = entries[i + 1]}
    end
  end
  if #messages > 0 then forget_in_flight_count() end
  table.sort(messages, function(a, b) return a.sequence > b.sequence end)
  for _, message in ipairs(messages) do
    redis.call('HDEL', in_flight, message.token)
    return_message(tonumber(string.match(message.token, '/(%d)$')), message.text)
  end
  return #messages
end

-- Return a message without its body, which is base64. Decoding a very long one would block the server.
local function without_body(message)
  local _, from = string.find(message, '"body": ?"')
  local to = from and string.find(message, '"', from + 1, true)
  return to and string.sub(message, 1, from) .. string.sub(message, to) or message
end

-- Return the headers of a message, and Millpond's own header. They are empty if there are none, as the own header in messages
-- of foreign clients, or if they cannot be decoded or are too long for that.
local function headers_of(message)
  if #message > 20000000 then message = without_body(message) end
  if #message > 20000000 then return {}, {} end
  local ok, decoded = pcall(cjson.decode, message)
  if not ok or type(decoded) ~= 'table' or type(decoded.headers) ~= 'table' then return {}, {} end
  local own = decoded.headers.millpond
  return decoded.headers, type(own) == 'table' and own or {}
end

-- Return the key of the batch, the task id and the unique key in the headers of a message; '' for one that is missing.
local function names_in(headers, own, prefix)
  local batch = type(own.batch) == 'string' and prefix .. 'millpond:batch:{' .. own.batch .. '}' or ''
  local id = type(headers.id) == 'string' and headers.id or ''
  return batch, id, type(own.once) == 'string' and own.once or ''
end

-- Return false if a message cannot contain this id: a quick test, so that its headers need not be decoded. For an id with
-- characters that JSON encoders write in different ways, return true.
local function may_contain_id(message, id)
  return string.find(id, '[^%w%-_.:]') or string.find(message, id, 1, true)
end

-- The record of an incomplete batch is kept for this long after the last send to it.
local UNFINISHED_MS = 30 * 24 * 3600 * 1000

local function extend_batch_expiry(batch, ms)
  redis.call('PEXPIRE', batch, ms)
  redis.call('PEXPIRE', batch .. ':results', ms)
end

-- Replace the placeholder -1 of a JSON field by a value. Within a JSON string the quotes of the name would be escaped, so
-- only the field itself is found.
local function fill(message, name, value)
  local from, to = string.find(message, '"' .. name .. '":-1', 1, true)
  if not from then return message end
  return string.sub(message, 1, to - 2) .. value .. string.sub(message, to + 1)
end

-- Send the batch callback with the batch's counts, regardless of its queue's bound. It is sent only once: not when the batch
-- is completed again after a requeue.
local function send_batch_callback(batch, now)
  local message, ready_key, wake_key, counters_key, sent_at =
    unpack(redis.call('HMGET', batch, 'then', 'then_key', 'then_wake', 'then_counters', 'then_sent_at'))
  if not message or sent_at then return end
  redis.call('HSET', batch, 'then_sent_at', now)
  local counts = redis.call('HMGET', batch, 'sent', 'succeeded', 'failed', 'cancelled', 'expired', 'opened_at',
    'closed_at', 'completed_at', 'cancelled_at')
  for i = 1, 9 do counts[i] = counts[i] or 0 end
  redis.call('LPUSH', ready_key, fill(fill(message, 'at', now), 'counts', '[' .. table.concat(counts, ',') .. ']'))
  redis.call('HINCRBY', counters_key, 'published', 1)
  if redis.call('LLEN', wake_key) == 0 then redis.call('LPUSH', wake_key, 1) end
  redis.call('PEXPIRE', wake_key, 60000)
end

local function complete_batch_if_done(batch, now)
  local closed_at, completed_at, sent, settled, keep_ms =
    unpack(redis.call('HMGET', batch, 'closed_at', 'completed_at', 'sent', 'settled', 'keep_ms'))
  if not closed_at or completed_at or tonumber(sent or 0) ~= tonumber(settled or 0) then return end
  redis.call('HSET', batch, 'completed_at', now)
  send_batch_callback(batch, now)
  if keep_ms then extend_batch_expiry(batch, keep_ms) end
end

-- A unique key without a time of its own lasts as long as its task. If the task is deleted by other means, it expires.
local UNIQUE_KEPT_MS = 30 * 24 * 3600 * 1000

-- Free a unique key when its task ends, so that the key can be used again. A key that another task has now is kept.
local function free_unique_key(name, id)
  if name ~= '' and redis.call('GET', KEYS[UNIQUE] .. name) == id then redis.call('DEL', KEYS[UNIQUE] .. name) end
end

-- Record the result of one task of a batch: count it, append it to the results, complete the batch with its last task.
local function record(batch, id, state, detail, now)
  if batch == '' or state == '' or redis.call('EXISTS', batch) == 0 then return end
  redis.call('HINCRBY', batch, state, 1)
  local settled = redis.call('HINCRBY', batch, 'settled', 1)
  redis.call('XADD', batch .. ':results', '*', 'id', id, 'state', state, 'detail', detail_that_fits(detail))
  if settled == 1 then redis.call('PEXPIRE', batch .. ':results', UNFINISHED_MS) end
  complete_batch_if_done(batch, now)
end

-- Move a whole message to the dead letters. `detail` is a JSON object: error, traceback, times, worker.
local function dead_letter(priority, message, reason, detail, deliveries, batch, id, now)
  redis.call('XADD', KEYS[DEAD], '*', 'message', message, 'reason', reason, 'detail', detail_that_fits(detail),
    'deliveries', deliveries, 'step', priority)
  count('dead', 1)
  redis.call('XTRIM', KEYS[DEAD], 'MAXLEN', '=', limit('dead_bound', 10000))
  redis.call('XTRIM', KEYS[DEAD], 'MINID', '=', now - limit('dead_keep_ms', 30 * 24 * 3600 * 1000))
  record(batch, id, 'failed', detail, now)
end

-- Leave a notice of a task that a script has ended, or whose end the result backend did not take, for a worker that notifies
-- the backend (broker/celery/backend_notices.py). The newest thousand are kept, for a day after the last; a long message without its
-- body. Tasks of Millpond's own client have no result backend.
local NOTICES_MOST, NOTICES_BYTES, NOTICES_MS = 1000, 100000, 24 * 3600 * 1000

local function leave_notice(message, headers, own, state, reason)
  if type(headers.id) ~= 'string' or headers.ignore_result == true and own.at then return end
  local key = KEYS[DEAD] .. ':untold'
  if #message > NOTICES_BYTES then message = without_body(message) end
  redis.call('LPUSH', key, state .. ' ' .. reason .. '\n' .. message)
  redis.call('LTRIM', key, 0, NOTICES_MOST - 1)
  redis.call('PEXPIRE', key, NOTICES_MS)
end

-- Move a message to the dead letters whose headers were not decoded yet, leave a notice, and free its unique key.
local function dead_letter_undecoded(priority, message, reason, deliveries, prefix, now)
  local headers, own = headers_of(message)
  local batch, id, unique = names_in(headers, own, prefix)
  dead_letter(priority, message, reason, cjson.encode({error = reason}), deliveries, batch, id, now)
  leave_notice(message, headers, own, 'failed', reason)
  free_unique_key(unique, id)
end

-- True if any message of this queue has counted deliveries. Read from the server once in a script.
local counted
local function deliveries_count()
  if counted == nil then counted = redis.call('EXISTS', KEYS[DELIVERIES]) == 1 end
  return counted
end

-- Count the delivery of a message and make it ready again, at the head of its queue or at its end. After too many deliveries
-- make it a dead letter.
local function redeliver(priority, message, prefix, now, to_back)
  local digest = redis.sha1hex(message)
  local deliveries = redis.call('HINCRBY', KEYS[DELIVERIES], digest, 1)
  counted = true
  if deliveries >= limit('max_deliveries', 5) then
    redis.call('HDEL', KEYS[DELIVERIES], digest)
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

-- Count a message that was removed from its list as cancelled in its batch, and free its unique key.
local function cancel_message(message, headers, own, prefix, now)
  local batch, id, unique = names_in(headers, own, prefix)
  forget_deliveries(message)
  free_unique_key(unique, id)
  record(batch, id, 'cancelled', '{}', now)
end
