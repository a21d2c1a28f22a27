-- Append a change to the audit, even if the server is out of memory: the change has been made.
--
-- KEYS  1 stream of the audit
-- ARGV  1 user   2 change   3 lines kept
-- Returns 1.

redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', tonumber(ARGV[3]) - 1)
redis.call('XADD', KEYS[1], '*', 'who', ARGV[1], 'what', ARGV[2])
return 1
