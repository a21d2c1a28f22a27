-- Find the message of a task in one page of a queue's messages.
--
-- KEYS  the queue's fifteen (see _queue.lua)
-- ARGV  1 list: '1' to '4' a ready list, 'delayed', 'dead', or 'held' (in flight) with 5 the consumer
--       2 index of the first message of the page; of 'dead' '+', or '(' and the id of the last one seen
--       3 messages a page   4 the task's id
-- Returns {start of the next page or '', then for a message that was found: the message, and its index, due ms or id of
--       the dead letter}.

local list_name, from, size, id = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local function is_wanted(message)
  return may_contain_id(message, id) and headers_of(message).id == id
end

if list_name == 'held' then
  local in_flight = redis.call('HGETALL', KEYS[IN_FLIGHT] .. ARGV[5])
  for i = 1, #in_flight, 2 do
    if is_wanted(in_flight[i + 1]) then return {'', in_flight[i + 1], in_flight[i]} end
  end
  return {''}
end

if list_name == 'dead' then
  local page = redis.call('XREVRANGE', KEYS[DEAD], from, '-', 'COUNT', size)
  for _, letter in ipairs(page) do
    for i = 1, #letter[2], 2 do
      if letter[2][i] == 'message' and is_wanted(letter[2][i + 1]) then return {'', letter[2][i + 1], letter[1]} end
    end
  end
  return {#page == size and '(' .. page[size][1] or ''}
end

local first = tonumber(from)
local page, width
if list_name == 'delayed' then
  page, width = redis.call('ZREVRANGE', KEYS[DELAYED], first, first + size - 1, 'WITHSCORES'), 2
else
  page, width = redis.call('LRANGE', KEYS[READY + tonumber(list_name) - 1], first, first + size - 1), 1
end
for i = 1, #page, width do
  local message = width == 2 and string.sub(page[i], 2) or page[i]
  if is_wanted(message) then return {'', message, width == 2 and page[i + 1] or tostring(first + i - 1)} end
end
return {#page == size * width and tostring(first + size) or ''}
