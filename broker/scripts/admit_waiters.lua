-- Admit waiting producers after the bound was changed or the queue was emptied.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  -
-- Returns 1.

write_although_full()
local measured = redis.call('HMGET', KEYS[DRAIN_RATE], 'rate', 'held')
set_bound(tonumber(measured[1]), tonumber(measured[2] or 0))
admit_waiters(now_ms(), waiting())
return 1
