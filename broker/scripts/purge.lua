-- Delete messages of a queue: one page of one list. Each counts as cancelled in its batch and frees its unique key.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 list: '1' to '4' a ready list, 'delayed'   2 messages at most   3 key prefix
-- Returns the number of messages deleted.

local list_name, size, prefix = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now, dropped, entries = now_ms(), {}, {}
write_although_full()

if list_name == 'delayed' then
  for i, entry in ipairs(redis.call('ZPOPMIN', KEYS[DELAYED], size)) do
    if i % 2 == 1 then
      dropped[#dropped + 1] = string.sub(entry, 2)
      entries[#entries + 1] = entry
    end
  end
else
  dropped = redis.call('RPOP', KEYS[READY + tonumber(list_name) - 1], size) or {}
end

for i, message in ipairs(dropped) do
  local headers, own = headers_of(message)
  if entries[i] then forget_aside(entries[i], headers.task) end
  cancel_message(message, headers, own, prefix, now)
end
count('settled', #dropped)
leave_out_of_rate(#dropped)
admit_waiters(now, waiting())
return #dropped
