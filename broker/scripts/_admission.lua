-- Admission: the fair line of producers that wait for room.
--
-- WAITERS                    sorted set, ticket -> position in the line
-- WAITERS .. ':called'       hash, ticket -> 'messages until': room granted to a producer, reserved until then (ms)
-- WAITERS .. ':late'         sorted set, ticket that did not use its grant -> when the ticket is forgotten (ms)
-- WAITERS .. ':room:' .. t   list on which the producer of a ticket waits; its grant, a number of messages, is pushed here
--
-- A ticket is 'messages wanted.id'. The head of the line gets a grant as soon as there is room for a fair part of the
-- messages that it wants, so that a slow pool does not grant them one by one and no producer takes all the room. Reserved
-- room is for its producer alone, and no producer overtakes the line.
--
-- A waiting producer takes its grant from the list at once. If a grant is still there after PICK_UP_MS, the producer was
-- killed or is very slow. For each such grant two more producers get one, even without room, so that many killed producers
-- do not block the line. A producer that did not use its grant in time, or found no room with it, returns to the head of the
-- line.

local CALL_MS, PICK_UP_MS, LATE_MS, MOST_CALLED, LOTS = 2000, 250, 60000, 100, 16

local function called_key() return KEYS[WAITERS] .. ':called' end

local function late_key() return KEYS[WAITERS] .. ':late' end

local function has_waiters()
  return redis.call('EXISTS', KEYS[WAITERS], called_key()) > 0
end

-- Return the room reserved for other tickets, and for this one (nil: it has no grant; 0: its grant was revoked).
local function reserved_room(ticket, now)
  local called, others = redis.call('HGETALL', called_key()), 0
  local own = ticket ~= '' and redis.call('ZSCORE', late_key(), ticket) and 0 or nil
  for i = 1, #called, 2 do
    local n, till = string.match(called[i + 1], '^(%d+) (%d+)$')
    if called[i] == ticket then
      own = tonumber(n)
    elseif tonumber(till) >= now then
      others = others + tonumber(n)
    end
  end
  return others, own
end

local function room_key(ticket) return KEYS[WAITERS] .. ':room:' .. ticket end

-- Revoke the grants that were not used in time. Return the number of those that were not even taken from their lists.
local function revoke_unclaimed(now)
  local called, not_picked_up = redis.call('HGETALL', called_key()), 0
  redis.call('ZREMRANGEBYSCORE', late_key(), '-inf', now)
  redis.call('ZREMRANGEBYSCORE', late_key(), '(' .. now + LATE_MS, '+inf')  -- the clock was set back
  for i = 1, #called, 2 do
    local n, till = string.match(called[i + 1], '^(%d+) (%d+)$')
    local left = tonumber(till) - now
    if left > CALL_MS then  -- the clock was set back
      left = CALL_MS
      redis.call('HSET', called_key(), called[i], string.format('%d %d', tonumber(n), now + CALL_MS))
    end
    local is_not_picked_up = left <= CALL_MS - PICK_UP_MS and redis.call('EXISTS', room_key(called[i])) == 1
    if is_not_picked_up or left < 0 then
      redis.call('HDEL', called_key(), called[i])
      redis.call('ZADD', late_key(), now + LATE_MS, called[i])
    end
    if is_not_picked_up then not_picked_up = not_picked_up + 1 end
  end
  return not_picked_up
end

local function grant(ticket, n, now)
  redis.call('ZREM', KEYS[WAITERS], ticket)
  redis.call('HSET', called_key(), ticket, string.format('%d %d', n, now + CALL_MS))
  redis.call('LPUSH', room_key(ticket), n)
  redis.call('PEXPIRE', room_key(ticket), LATE_MS)
end

-- Grant room to the producers in the line, in order, as far as there is room. `ready` is the number of messages on the queue.
local function admit_waiters(now, ready)
  if not has_waiters() then return end
  local spare = 2 * revoke_unclaimed(now)
  local bound, kept = bound_in_messages(limit_texts('bound')[1]), reserved_room('', now)
  local room = bound == 0 and math.huge or bound - ready - kept
  local lot = bound == 0 and math.huge or math.max(1, math.floor(bound / LOTS))
  for _ = 1, MOST_CALLED - redis.call('HLEN', called_key()) do
    local head = redis.call('ZRANGE', KEYS[WAITERS], 0, 0)[1]
    if not head then return end
    local share = math.max(lot, math.floor(room / redis.call('ZCARD', KEYS[WAITERS])))
    local n = math.min(tonumber(string.match(head, '^%d+')), share)
    if n > room then
      if spare == 0 then return end
      spare = spare - 1
    end
    grant(head, n, now)
    room = room - n
  end
end

-- Put a producer into the line, unless it is in it: at its head if it had a grant in vain, else at its end.
local function join_line(ticket, had_grant)
  if redis.call('ZSCORE', KEYS[WAITERS], ticket) then return end
  local edge = had_grant and 0 or -1
  local position = tonumber(redis.call('ZRANGE', KEYS[WAITERS], edge, edge, 'WITHSCORES')[2] or 0)
  redis.call('ZADD', KEYS[WAITERS], had_grant and position - 1 or position + 1, ticket)
end

local function leave_line(ticket)
  redis.call('ZREM', KEYS[WAITERS], ticket)
  redis.call('HDEL', called_key(), ticket)
  redis.call('ZREM', late_key(), ticket)
end
