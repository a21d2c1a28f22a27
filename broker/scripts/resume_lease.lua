-- Resume a lease after a lost connection, under a new consumer name.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 consumer   2 lease ms   3 the new name of the consumer   4 the greatest sequence of a delivery that it saw
--       5... the tokens that it has in flight
-- Returns {lease (1 in force, 2 in force although the list of consumers was deleted, 0 lost), released, forgotten, until (ms),
--       missing...}. `released` is the number of messages that returned to the head of the queue: the reply with them never
--       arrived, or the server has forgotten their outcome. `forgotten` is the number of deliveries that the server has
--       forgotten, because it was restored from a copy or is a replica that lagged; `until` is the time of the last call that
--       it knows. `missing` are the tokens that it does not have in flight for this consumer.
--
-- Because of the new name, a call of the lost connection that still arrives changes nothing. The counter of deliveries
-- continues from the sequence that the consumer saw, so that forgotten deliveries are reported only once.

write_although_full()
local fetched = tonumber(redis.call('HGET', KEYS[COUNTERS], 'fetched') or 0)
local forgotten = math.max(0, tonumber(ARGV[4]) - fetched)
count('fetched', forgotten)
count('forgotten', forgotten)
local reply = {lease_of(ARGV[1]), 0, forgotten, tonumber(redis.call('HGET', KEYS[DRAIN_RATE], 'spoken_at') or 0)}

local known, in_flight = {}, KEYS[IN_FLIGHT] .. ARGV[1]
for i = 5, #ARGV do
  known[ARGV[i]] = true
  if redis.call('HEXISTS', in_flight, ARGV[i]) == 0 then reply[#reply + 1] = ARGV[i] end
end
if reply[1] == 0 then return reply end
reply[2] = release(in_flight, return_to_head, known)
if ARGV[3] ~= ARGV[1] then
  redis.call('ZREM', KEYS[CONSUMERS], ARGV[1])
  if redis.call('EXISTS', in_flight) == 1 then redis.call('RENAME', in_flight, KEYS[IN_FLIGHT] .. ARGV[3]) end
end
redis.call('ZADD', KEYS[CONSUMERS], now_ms() + tonumber(ARGV[2]), ARGV[3])
count('returned', reply[2])
if reply[2] > 0 then wake(1) end
return reply
