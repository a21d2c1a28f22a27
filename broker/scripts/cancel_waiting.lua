-- Settle the messages of a cancelled task or batch without a delivery: one page of one list.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 list: '1' to '4' a ready list, 'delayed'   2 index of the first message of the page   3 messages a page
--       4 'id' or 'batch'   5 the id   6 key prefix
-- Returns {messages in the page, messages settled}.
--
-- A message of a ready list is first overwritten in place, because that needs no search. The placeholders are removed
-- before the script ends.

local which, from, size, kind, wanted, prefix = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local now, gone, GONE = now_ms(), 0, '\0gone'
local key = which == 'delayed' and KEYS[DELAYED] or KEYS[READY + tonumber(which) - 1]
write_although_full()

local function is_wanted(message, headers, own)
  if kind == 'id' then return headers.id == wanted end
  return own.batch == wanted
end

local function settle(message, headers, own)
  local batch = type(own.batch) == 'string' and prefix .. 'millpond:batch:{' .. own.batch .. '}' or ''
  local id = type(headers.id) == 'string' and headers.id or ''
  forget_deliveries(message)
  free_unique_key(type(own.once) == 'string' and own.once or '', id)
  record(batch, id, 'cancelled', '{}', now)
  leave_untold(message, headers, own, 'cancelled', '')
  gone = gone + 1
end

-- The newest first, from the end at which messages enter: those that are fetched meanwhile do not shift the index.
local entries
if which == 'delayed' then
  entries = redis.call('ZREVRANGE', key, from, from + size - 1)
else
  entries = redis.call('LRANGE', key, from, from + size - 1)
end
for i, entry in ipairs(entries) do
  if may_contain_id(entry, wanted) then
    local message = which == 'delayed' and string.sub(entry, 2) or entry
    local headers, own = headers_of(message)
    if is_wanted(message, headers, own) then
      if which == 'delayed' then
        redis.call('ZREM', key, entry)
        forget_aside(entry, headers.task)
      else
        redis.call('LSET', key, from + i - 1, GONE)
      end
      settle(message, headers, own)
    end
  end
end
if gone > 0 and which ~= 'delayed' then redis.call('LREM', key, gone, GONE) end
count('settled', gone)
-- The pool did not clear these: the measurement of its drain rate leaves them out.
if redis.call('HEXISTS', KEYS[DRAIN_RATE], 'cleared') == 1 then redis.call('HINCRBY', KEYS[DRAIN_RATE], 'cleared', gone) end
admit_waiters(now, waiting())
return {#entries, gone}
