-- Record that a period of a schedule was fired.
--
-- KEYS  1 state of the schedule, a hash
-- ARGV  1 due time of the period, ms   2 id of the task   3 missed periods before it   4 scheduler that fired it
-- Returns 1, or 0 if this period or a later one was recorded before: no period is counted twice.

if tonumber(redis.call('HGET', KEYS[1], 'last_due_ms') or -1) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'last_due_ms', ARGV[1], 'last_id', ARGV[2], 'last_missed', ARGV[3], 'by', ARGV[4],
  'last_fired_ms', now_ms(), 'trouble', '')
redis.call('HINCRBY', KEYS[1], 'fired', 1)
redis.call('HINCRBY', KEYS[1], 'missed', ARGV[3])
return 1
