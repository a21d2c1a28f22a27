-- Take or renew a seat among the processes that watch for messages of a queue (consume/watcher.py).
--
-- KEYS  the seats of the queue: for each a string that expires, the name of the process that has it
-- ARGV  1 the process   2 for how long it takes a seat, ms; '0': it leaves its seat
-- Returns ten times the number of its seat (0: none) plus the number of seats that are taken.

local own, free, taken = 0, 0, 0
for number, key in ipairs(KEYS) do
  local holder = redis.call('GET', key)
  if holder then taken = taken + 1 end
  if holder == ARGV[1] then own = number end
  if not holder and free == 0 then free = number end
end
if ARGV[2] == '0' then
  if own > 0 then redis.call('DEL', KEYS[own]) end
  return taken
end
if own > 0 then
  redis.call('PEXPIRE', KEYS[own], ARGV[2])
elseif free > 0 then
  redis.call('SET', KEYS[free], ARGV[1], 'PX', ARGV[2])
  own, taken = free, taken + 1
end
return 10 * own + taken
