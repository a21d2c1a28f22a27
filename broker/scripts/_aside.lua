-- Messages whose kind the consumer that fetched them does not have; put before each script, after _admission.lua.
--
-- Such a message is put aside: it is among the delayed until its time is over, where everything that looks for a message
-- finds it, and beside it stands by kind, so that a consumer that has the kind takes it before that. It counts against the
-- queue's bound as one that is ready does. What is left when the time is over becomes a dead letter, or expires; while some
-- consumer of the queue has the kind and only no room, it waits on.
--
-- DELAYED .. ':aside'              sorted set, kind -> when the first message of it is over, ms
-- DELAYED .. ':aside:' .. kind     sorted set, how it ends ('d' dead letter, 'e' expired) and the delayed entry -> the same
-- DELAYED .. ':aside:why'          hash, kind -> detail of its dead letters
-- CONSUMERS .. ':kinds'            hash, consumer -> the kinds that it has, each between newlines

-- Messages of more kinds than this are not put aside, because each publish counts all of them.
local LOOK_AGAIN_MS, MOST_ENDED, MOST_KINDS = 60000, 100, 500

local function aside_key() return KEYS[DELAYED] .. ':aside' end

local function aside_why_key() return KEYS[DELAYED] .. ':aside:why' end

local function aside_kind_key(kind) return KEYS[DELAYED] .. ':aside:' .. kind end

local function kinds_key() return KEYS[CONSUMERS] .. ':kinds' end

local function kinds_aside() return redis.call('ZRANGE', aside_key(), 0, -1) end

-- The messages that wait for a slot: those on the ready lists and those put aside.
local function waiting()
  local n = depth()
  for _, kind in ipairs(kinds_aside()) do n = n + redis.call('ZCARD', aside_kind_key(kind)) end
  return n
end

local function announce_kinds(consumer, kinds)
  for _, gone in ipairs(redis.call('HKEYS', kinds_key())) do
    if not redis.call('ZSCORE', KEYS[CONSUMERS], gone) then redis.call('HDEL', kinds_key(), gone) end
  end
  redis.call('HSET', kinds_key(), consumer, kinds)
end

local function has_kind(kinds, kind)
  return kinds and string.find(kinds, '\n' .. kind .. '\n', 1, true) ~= nil
end

-- A consumer is asked as long as it is listed: its lease may have expired because the clock was set forward.
local function somebody_has(kind)
  for _, consumer in ipairs(redis.call('ZRANGE', KEYS[CONSUMERS], 0, -1)) do
    if has_kind(redis.call('HGET', kinds_key(), consumer), kind) then return true end
  end
  return false
end

-- Wake each consumer that has a kind, by a list of its own: a token for all may be taken by one that does not have it.
local function wake_those_with(kind, now)
  for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[CONSUMERS], now, '+inf', 'LIMIT', 0, 100)) do
    if has_kind(redis.call('HGET', kinds_key(), consumer), kind) then
      local own = KEYS[WAKE] .. ':' .. consumer
      if redis.call('EXISTS', own) == 0 then redis.call('LPUSH', own, 1) end
      redis.call('PEXPIRE', own, 60000)
    end
  end
end

-- Keep what is known of a kind as long as messages of it are aside.
local function note_aside(kind)
  local first = redis.call('ZRANGE', aside_kind_key(kind), 0, 0, 'WITHSCORES')[2]
  if first then
    redis.call('ZADD', aside_key(), first, kind)
  else
    redis.call('ZREM', aside_key(), kind)
    redis.call('HDEL', aside_why_key(), kind)
  end
end

-- Return whether the message was put aside.
local function put_aside(priority, message, kind, till, ending, detail)
  if redis.call('ZCARD', aside_key()) >= MOST_KINDS and not redis.call('ZSCORE', aside_key(), kind) then return false end
  local entry = priority .. message
  redis.call('ZADD', KEYS[DELAYED], till, entry)
  -- Of messages whose time ends in the same millisecond the order is kept: each stands behind the last.
  local last = ending == 'd' and redis.call('ZRANGE', aside_kind_key(kind), -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', aside_kind_key(kind), last and math.max(till, last + 0.001) or till, ending .. entry)
  redis.call('HSET', aside_why_key(), kind, detail)
  note_aside(kind)
  return true
end

-- Forget that an entry was put aside, which leaves the delayed by other ways: it was cancelled, or purged.
local function forget_aside(entry, kind)
  if type(kind) ~= 'string' or not redis.call('ZSCORE', aside_key(), kind) then return end
  if redis.call('ZREM', aside_kind_key(kind), 'd' .. entry, 'e' .. entry) > 0 then note_aside(kind) end
end

-- Take messages out of those put aside of which the consumer has the kind, `most` at most, the oldest first; return them by
-- priority, and whether there are more.
local function take_aside(consumer, most)
  local taken, n, kinds = {}, 0, redis.call('HGET', kinds_key(), consumer)
  for _, kind in ipairs(kinds and kinds_aside() or {}) do
    if has_kind(kinds, kind) then
      for _, member in ipairs(redis.call('ZRANGE', aside_kind_key(kind), 0, most - n)) do
        if n == most then return taken, true end
        redis.call('ZREM', aside_kind_key(kind), member)
        local entry = string.sub(member, 2)
        if redis.call('ZREM', KEYS[DELAYED], entry) == 1 then
          local step = tonumber(string.sub(entry, 1, 1))
          taken[step] = taken[step] or {}
          table.insert(taken[step], string.sub(entry, 2))
          n = n + 1
        end
      end
      note_aside(kind)
    end
  end
  return taken, false
end

local function end_one_aside(entry, kind, ending, detail, prefix, now)
  local priority, message = tonumber(string.sub(entry, 1, 1)), string.sub(entry, 2)
  local headers, own = headers_of(message)
  local batch = type(own.batch) == 'string' and prefix .. 'millpond:batch:{' .. own.batch .. '}' or ''
  local id = type(headers.id) == 'string' and headers.id or ''
  if ending == 'e' then
    count('settled', 1)
    count('expired', 1)
    record(batch, id, 'expired', '{}', now)
    leave_untold(message, headers, own, 'expired', '')
  else
    local before = tonumber(redis.call('HGET', KEYS[DELIVERIES], redis.sha1hex(message)) or 0)
    dead_letter(priority, message, 'unknown kind', detail, before, batch, id, now)
    leave_untold(message, headers, own, 'failed', 'unknown kind')
  end
  forget_deliveries(message)
  free_unique_key(type(own.once) == 'string' and own.once or '', id)
end

-- End what is aside and whose time is over; return how many, and whether there are more.
local function end_aside(prefix, now)
  local ended, are_more = 0, false
  for _, kind in ipairs(redis.call('ZRANGEBYSCORE', aside_key(), '-inf', now)) do
    local known, detail = somebody_has(kind), redis.call('HGET', aside_why_key(), kind) or '{}'
    local over = redis.call('ZRANGEBYSCORE', aside_kind_key(kind), '-inf', now, 'LIMIT', 0, MOST_ENDED)
    are_more = are_more or #over == MOST_ENDED
    for _, member in ipairs(over) do
      local ending, entry = string.sub(member, 1, 1), string.sub(member, 2)
      local is_there = redis.call('ZSCORE', KEYS[DELAYED], entry)
      if is_there and known and ending == 'd' then
        redis.call('ZADD', KEYS[DELAYED], now + LOOK_AGAIN_MS, entry)
        redis.call('ZADD', aside_kind_key(kind), now + LOOK_AGAIN_MS, member)
      else
        redis.call('ZREM', aside_kind_key(kind), member)
        if redis.call('ZREM', KEYS[DELAYED], entry) == 1 then
          end_one_aside(entry, kind, ending, detail, prefix, now)
          ended = ended + 1
        end
      end
    end
    note_aside(kind)
  end
  return ended, are_more
end

