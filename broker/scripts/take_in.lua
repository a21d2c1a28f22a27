-- Move messages that kombu's own Redis transport keeps as unacknowledged to the head of the queue.
--
-- KEYS  the queue's fifteen (see _queue.lua), 16 kombu's hash `unacked`, 17 its sorted set `unacked_index`
-- ARGV  for each message, the newest first: its delivery tag in kombu's hash, priority index, message
-- Returns the number taken in. No delivery is counted.
--
-- A message leaves kombu's hash in the step that puts it on its queue. One that has left the hash already is not moved.

local taken = 0
for i = 1, #ARGV, 3 do
  if redis.call('HDEL', KEYS[16], ARGV[i]) == 1 then
    redis.call('ZREM', KEYS[17], ARGV[i])
    return_to_head(tonumber(ARGV[i + 1]), ARGV[i + 2])
    taken = taken + 1
  end
end
if taken > 0 then
  count('taken_in', taken)
  wake(1)
end
return taken
