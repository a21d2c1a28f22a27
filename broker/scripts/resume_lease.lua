-- Resume a lease after a lost connection, under a new consumer name.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms   3 the new name of the consumer   4 the greatest sequence of a delivery that it saw
--       5... the tokens that it has in flight
-- Returns {lease (1 held, 2 held although the list of consumers was deleted, 0 lost), released, forgotten, until (ms),
--       missing...}: `released` messages came in a reply that never arrived, or ended in a way that the server forgot; they
--       are at the head of the queue again. `forgotten` deliveries were made after this server's memory ends, the time of
--       the last call that it knows: it was restored from a copy, or is a replica that lagged. `missing` are the tokens that
--       it does not have in flight for this consumer.
--
-- With the new name, a call of the lost connection that still arrives changes nothing. The count of deliveries goes on
-- where the consumer saw it, so that what was forgotten is counted once.

write_although_full()
local fetched = tonumber(redis.call('HGET', KEYS[COUNTERS], 'fetched') or 0)
local forgotten = math.max(0, tonumber(ARGV[4]) - fetched)
count('fetched', forgotten)
count('forgotten', forgotten)
local reply = {lease_of(ARGV[1]), 0, forgotten, tonumber(redis.call('HGET', KEYS[DRAIN_RATE], 'spoken_at') or 0)}

local known, held = {}, KEYS[IN_FLIGHT] .. ARGV[1]
for i = 5, #ARGV do
  known[ARGV[i]] = true
  if redis.call('HEXISTS', held, ARGV[i]) == 0 then reply[#reply + 1] = ARGV[i] end
end
if reply[1] == 0 then return reply end
reply[2] = release(held, return_to_head, known)
if ARGV[3] ~= ARGV[1] then
  redis.call('ZREM', KEYS[CONSUMERS], ARGV[1])
  if redis.call('EXISTS', held) == 1 then redis.call('RENAME', held, KEYS[IN_FLIGHT] .. ARGV[3]) end
end
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[3])
count('returned', reply[2])
if reply[2] > 0 then wake(1) end
return reply
