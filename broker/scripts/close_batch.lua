-- Close a batch; complete it if all its tasks are settled.
--
-- KEYS  1 batch hash
-- ARGV  -
-- Returns 1, or 0 if there is no such batch.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = now_ms()
redis.call('HSETNX', KEYS[1], 'closed_at', now)
complete_batch_if_done(KEYS[1], now)
return 1
