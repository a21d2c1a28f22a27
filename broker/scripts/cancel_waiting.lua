-- Settle the messages of a cancelled task or batch that wait in a list: one page of it.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 list: '1' to '4' a ready list, 'delayed'   2 index of the first message of the page   3 messages a page
--       4 'id' or 'batch'   5 the id   6 key prefix
-- Returns {messages in the page, messages settled}.
--
-- A message in a ready list is replaced by a placeholder, because that needs no search. All placeholders are removed
-- together before the script ends.

local list_name, from, size, id_type, wanted, prefix = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local now, gone, GONE = now_ms(), 0, '\0gone'
local key = list_name == 'delayed' and KEYS[DELAYED] or KEYS[READY + tonumber(list_name) - 1]
write_although_full()

local function is_wanted(message, headers, own)
  if id_type == 'id' then return headers.id == wanted end
  return own.batch == wanted
end

local function settle(message, headers, own)
  cancel_message(message, headers, own, prefix, now)
  leave_notice(message, headers, own, 'cancelled', '')
  gone = gone + 1
end

-- The newest first, from the end at which messages enter: a fetch between two pages does not shift the index then.
local entries
if list_name == 'delayed' then
  entries = redis.call('ZREVRANGE', key, from, from + size - 1)
else
  entries = redis.call('LRANGE', key, from, from + size - 1)
end
for i, entry in ipairs(entries) do
  if may_contain_id(entry, wanted) then
    local message = list_name == 'delayed' and string.sub(entry, 2) or entry
    local headers, own = headers_of(message)
    if is_wanted(message, headers, own) then
      if list_name == 'delayed' then
        redis.call('ZREM', key, entry)
        forget_aside(entry, headers.task)
      else
        redis.call('LSET', key, from + i - 1, GONE)
      end
      settle(message, headers, own)
    end
  end
end
if gone > 0 and list_name ~= 'delayed' then redis.call('LREM', key, gone, GONE) end
count('settled', gone)
leave_out_of_rate(gone)
admit_waiters(now, waiting())
return {#entries, gone}
