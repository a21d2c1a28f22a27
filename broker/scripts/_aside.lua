-- Messages of a kind that the consumer which fetched them does not have.
--
-- Such a message is put aside: it is a delayed message until its time is over, so every search for messages finds it. It is
-- also recorded by its kind, so that a consumer that has the kind takes it before that. It counts against the queue's bound
-- like a ready message. When its time is over it becomes a dead letter, or expires. If some consumer of the queue has the
-- kind by then, but had no room for it, it waits on.
--
-- DELAYED .. ':aside'              sorted set, kind -> when the time of its first message is over, ms
-- DELAYED .. ':aside:' .. kind     sorted set, how it ends ('d' dead letter, 'e' expired) and the delayed entry -> the same
-- DELAYED .. ':aside:why'          hash, kind -> detail of its dead letters
-- CONSUMERS .. ':kinds'            hash, consumer -> the kinds that it has, each between newlines

-- Messages of more kinds than MOST_KINDS are not put aside, because each publish counts those of every kind. If a consumer has
-- the kind of a message whose time is over, the message waits for LOOK_AGAIN_MS more.
local LOOK_AGAIN_MS, MOST_ENDED, MOST_KINDS = 60000, 100, 500

local function aside_key() return KEYS[DELAYED] .. ':aside' end

local function aside_why_key() return KEYS[DELAYED] .. ':aside:why' end

local function aside_kind_key(kind) return KEYS[DELAYED] .. ':aside:' .. kind end

local function kinds_key() return KEYS[CONSUMERS] .. ':kinds' end

local function kinds_aside() return redis.call('ZRANGE', aside_key(), 0, -1) end

-- Return the number of messages that wait for a slot: those on the ready lists and those put aside.
local function waiting()
  local n = depth()
  for _, kind in ipairs(kinds_aside()) do n = n + redis.call('ZCARD', aside_kind_key(kind)) end
  return n
end

-- Store the kinds of a consumer, and forget those of consumers that are not listed any more.
local function announce_kinds(consumer, kinds)
  for _, gone in ipairs(redis.call('HKEYS', kinds_key())) do
    if not redis.call('ZSCORE', KEYS[CONSUMERS], gone) then redis.call('HDEL', kinds_key(), gone) end
  end
  redis.call('HSET', kinds_key(), consumer, kinds)
end

local function has_kind(kinds, kind)
  return kinds and string.find(kinds, '\n' .. kind .. '\n', 1, true) ~= nil
end

-- True if a listed consumer has a kind. Its lease may have expired, because the clock may have been set forward.
local function any_consumer_has(kind)
  for _, consumer in ipairs(redis.call('ZRANGE', KEYS[CONSUMERS], 0, -1)) do
    if has_kind(redis.call('HGET', kinds_key(), consumer), kind) then return true end
  end
  return false
end

-- Wake each consumer that has a kind, by its own wake list. A token in the common list may be taken by another consumer.
local function wake_consumers_with(kind, now)
  for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[CONSUMERS], now, '+inf', 'LIMIT', 0, 100)) do
    if has_kind(redis.call('HGET', kinds_key(), consumer), kind) then
      local own = KEYS[WAKE] .. ':' .. consumer
      if redis.call('EXISTS', own) == 0 then redis.call('LPUSH', own, 1) end
      redis.call('PEXPIRE', own, 60000)
    end
  end
end

-- Update the records of a kind after messages of it were put aside or left. Without messages, delete them.
local function update_aside(kind)
  local first = redis.call('ZRANGE', aside_kind_key(kind), 0, 0, 'WITHSCORES')[2]
  if first then
    redis.call('ZADD', aside_key(), first, kind)
  else
    redis.call('ZREM', aside_key(), kind)
    redis.call('HDEL', aside_why_key(), kind)
  end
end

-- Put a message aside. Return false if there are too many kinds.
local function put_aside(priority, message, kind, till, ending, detail)
  if redis.call('ZCARD', aside_key()) >= MOST_KINDS and not redis.call('ZSCORE', aside_key(), kind) then return false end
  local entry = priority .. message
  redis.call('ZADD', KEYS[DELAYED], till, entry)
  -- Messages whose time ends in the same millisecond keep their order: each gets a score behind the last.
  local last = ending == 'd' and redis.call('ZRANGE', aside_kind_key(kind), -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', aside_kind_key(kind), last and math.max(till, last + 0.001) or till, ending .. entry)
  redis.call('HSET', aside_why_key(), kind, detail)
  update_aside(kind)
  return true
end

-- Delete the record of an entry that was removed from the delayed messages by another script: it was cancelled, or purged.
local function forget_aside(entry, kind)
  if type(kind) ~= 'string' or not redis.call('ZSCORE', aside_key(), kind) then return end
  if redis.call('ZREM', aside_kind_key(kind), 'd' .. entry, 'e' .. entry) > 0 then update_aside(kind) end
end

-- Remove at most `most` messages that were put aside and whose kind the consumer has, the oldest first. Return them by
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
      update_aside(kind)
    end
  end
  return taken, false
end

-- Make the message put aside whose time is over first a dead letter, for the reason 'shed'. Return false if there is none.
local function shed_aside(prefix, now)
  local kind = redis.call('ZRANGE', aside_key(), 0, 0)[1]
  if not kind then return false end
  local member = redis.call('ZRANGE', aside_kind_key(kind), 0, 0)[1]
  local priority, message = tonumber(string.sub(member, 2, 2)), string.sub(member, 3)
  redis.call('ZREM', aside_kind_key(kind), member)
  update_aside(kind)
  if redis.call('ZREM', KEYS[DELAYED], priority .. message) == 1 then
    forget_deliveries(message)
    dead_letter_undecoded(priority, message, 'shed', 0, prefix, now)
  end
  return true
end

-- End a message that was put aside: it expired (`ending` 'e'), or becomes a dead letter.
local function end_aside_message(entry, ending, detail, prefix, now)
  local priority, message = tonumber(string.sub(entry, 1, 1)), string.sub(entry, 2)
  local headers, own = headers_of(message)
  local batch, id, unique = names_in(headers, own, prefix)
  if ending == 'e' then
    count('settled', 1)
    count('expired', 1)
    record(batch, id, 'expired', '{}', now)
    leave_notice(message, headers, own, 'expired', '')
  else
    local before = tonumber(redis.call('HGET', KEYS[DELIVERIES], redis.sha1hex(message)) or 0)
    dead_letter(priority, message, 'unknown kind', detail, before, batch, id, now)
    leave_notice(message, headers, own, 'failed', 'unknown kind')
  end
  forget_deliveries(message)
  free_unique_key(unique, id)
end

-- End the messages put aside whose time is over. Return their number, and whether there are more.
local function end_aside(prefix, now)
  local ended, are_more = 0, false
  for _, kind in ipairs(redis.call('ZRANGEBYSCORE', aside_key(), '-inf', now)) do
    local known, detail = any_consumer_has(kind), redis.call('HGET', aside_why_key(), kind) or '{}'
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
          end_aside_message(entry, ending, detail, prefix, now)
          ended = ended + 1
        end
      end
    end
    update_aside(kind)
  end
  return ended, are_more
end

