-- Set or unset limits of a queue, and wake every idle consumer.
--
-- KEYS  the queue's fifteen (see _queue.lua), 16 the set of queues
-- ARGV  1 the queue, then for each limit two: its name, its value or '' to unset it
-- Returns 1.

write_although_full()  -- a paused queue must be resumable even if its messages have filled the server
redis.call('SADD', KEYS[16], ARGV[1])
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[LIMITS], ARGV[i])
  else
    redis.call('HSET', KEYS[LIMITS], ARGV[i], ARGV[i + 1])
  end
end
forget_in_flight_count()  -- it is right only while a limit is in force
wake(100)
return 1
