-- Keep a line of who changed what, also on a server that is full: the change was made.
--
-- KEYS  1 stream of changes
-- ARGV  1 who   2 what   3 how many lines are kept
-- Returns 1.

redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', tonumber(ARGV[3]) - 1)
redis.call('XADD', KEYS[1], '*', 'who', ARGV[1], 'what', ARGV[2])
return 1
