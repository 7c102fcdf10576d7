-- A dispute is about an INTERNAL bar that is stored in place of what CORE or FOLLOWED say of that day.
--
-- A peer may know the newer bar, so its larger volume stays for a minute. The minute counts from the
-- first such bar, so that sending one share more again and again gains nothing. Then the bar of CORE or
-- FOLLOWED (the displaced bar) returns by itself, and INTERNAL is refused for that symbol and day until
-- CORE or FOLLOWED reach the disputed volume.
--
-- While our own source is silent, what it said before contradicts nobody: no bar returns, and INTERNAL is
-- refused nothing. A node that has lost its upstream lives on what its peers send.
--
-- A dispute has day and since. While it is open it has ``displaced`` (nil: they have no bar of that
-- day); once the bar has returned it has ``volume`` and ``span``, which they must reach.

local MOST_DISPUTE_LATE = 1000 -- ms; like public bars, all are read once a second at most
local OPEN = ' - -' -- in the text of an open dispute only

-- Most disputes are only looked at, so ``displaced`` is read from the rest of the text when it is needed.
local function read_dispute(text)
  local day, since, volume, span, at = string.match(text, '^(%S+) (%S+) (%S+) (%S+) ?()')
  return {day = tonumber(day), since = tonumber(since), volume = tonumber(volume),
    span = tonumber(span), text = text, displaced_at = at}
end

local function displaced_of(dispute)
  local authority, figures, stored_at, json_at =
    string.match(dispute.text, '^(%S+) (%S+ %S+ %S+ %S+) (%S+) ()', dispute.displaced_at)
  return authority and {day = dispute.day, day_text = string.format('%.0f', dispute.day),
    authority = authority, figures = figures, stored_at = stored_at,
    json = string.sub(dispute.text, json_at)}
end

-- The texts in ``disputed`` by symbol (false: none), as far as this call has read them.
local dispute_texts, any_disputes = {}, redis.call('EXISTS', key('disputed')) == 1

-- Reads those of all symbols that a call is about to ask for.
local function read_disputes_of(symbols)
  if not any_disputes then return end
  for i, text in ipairs(redis.call('HMGET', key('disputed'), unpack(symbols))) do
    dispute_texts[symbols[i]] = text
  end
end

-- Returns the symbol's dispute about that day, or nil.
local function dispute_of(symbol, day)
  if not any_disputes then return nil end
  local text = dispute_texts[symbol]
  if text == nil then text = redis.call('HGET', key('disputed'), symbol) end
  local dispute = text and read_dispute(text)
  return dispute and dispute.day == day and dispute or nil
end

-- Returns whether INTERNAL is refused for that symbol and day, as long as our source isn't silent.
local function is_settled(symbol, day)
  local text = any_disputes and dispute_texts[symbol]
  if not text or string.find(text, OPEN, 1, true) then return false end
  return dispute_of(symbol, day) ~= nil
end

local function is_open(dispute) return dispute ~= nil and dispute.volume == nil end

local function write_dispute(symbol, text)
  redis.call('HSET', key('disputed'), symbol, text)
  dispute_texts[symbol], any_disputes = text, true
end

local function end_dispute(symbol)
  if not any_disputes or dispute_texts[symbol] == false then return end
  redis.call('HDEL', key('disputed'), symbol)
  dispute_texts[symbol] = false
end

local function open_dispute(symbol, day, since, displaced)
  local text = string.format('%.0f %.0f', day, since) .. OPEN
  if displaced then
    text = string.format('%s %s %s %s %s', text, displaced.authority, displaced.figures,
      displaced.stored_at, displaced.json)
  end
  write_dispute(symbol, text)
  local oldest = tonumber(redis.call('GET', key('oldest_dispute')))
  if not oldest or since < oldest then
    redis.call('SET', key('oldest_dispute'), string.format('%.0f', since))
  end
end

-- Notes that CORE or FOLLOWED contradict a peer's INTERNAL bar of a larger volume.
local function contradict(symbol, since, internal)
  write_dispute(symbol, string.format('%.0f %.0f %.0f %.17g', internal.day, since,
    volume_of(internal), span_of(internal)))
  count_against(redis.call('HGET', key('senders'), symbol), 'contradicted', 1)
end

local function reaches(bar, dispute)
  local volume = volume_of(bar)
  return volume > dispute.volume or (volume == dispute.volume and span_of(bar) >= dispute.span)
end

local function write_returned(symbol, bar, authority)
  redis.call('HSET', key('last'), symbol, write_last(bar, authority, bar.stored_at))
  if authority == 'CORE' then redis.call('ZADD', key('changed'), revision, symbol) end
end

-- Removes the newest day, which only INTERNAL has; the bar before it is the newest again.
local function take_back(symbol, internal)
  local bars, foreign = key('bars:' .. symbol), key('foreign:' .. symbol)
  redis.call('SREM', foreign, date_of(internal.json, symbol))
  local json = redis.call('RPOP', bars)
  if not json then
    remove(symbol)
    return nil
  end
  log_replaced(symbol)
  local date = date_of(json, symbol)
  local authority = redis.call('SISMEMBER', foreign, date) == 1 and 'INTERNAL' or 'CORE'
  local bar = {day = day_of(date), authority = authority, figures = figures_in(json),
    stored_at = '0', json = json}
  bar.day_text = string.format('%.0f', bar.day)
  redis.call('HSET', key('last'), symbol, write_last(bar, authority, bar.stored_at))
  return bar
end

-- Ends an open dispute in favour of CORE or FOLLOWED. Returns the newest bar after that (nil: the symbol
-- has none). The caller writes the revisions.
local function give_back(symbol, dispute)
  local internal = read_last(redis.call('HGET', key('last'), symbol))
  contradict(symbol, dispute.since, internal)
  end_public(symbol)
  local displaced = displaced_of(dispute)
  if not displaced then return take_back(symbol, internal) end
  log_replaced(symbol) -- followers would keep the larger bar
  write_returned(symbol, displaced, displaced.authority)
  return displaced
end

-- Returns whether CORE or FOLLOWED have completed no cycle for so long that they count as silent.
local function is_source_silent()
  local silent_at = redis.call('GET', key('silent_at'))
  return not silent_at or now > tonumber(silent_at)
end

-- Ends the disputes that have been open for a minute; every script that looks calls it.
local function expire_disputes()
  local oldest = redis.call('GET', key('oldest_dispute'))
  if not oldest or now - oldest < INTERNAL_STANDS then return end
  if is_source_silent() then return end
  redis.call('DEL', key('oldest_dispute')) -- first: see live
  local found, later = redis.call('HGETALL', key('disputed')), nil
  for i = 1, #found, 2 do
    local dispute = read_dispute(found[i + 1])
    if is_open(dispute) then
      if now - dispute.since >= INTERNAL_STANDS then
        give_back(found[i], dispute)
      else
        later = math.min(later or now, dispute.since)
      end
    end
  end
  if later then
    later = math.max(later, now - INTERNAL_STANDS + MOST_DISPUTE_LATE)
    redis.call('SET', key('oldest_dispute'), string.format('%.0f', later))
  end
end

-- Opens, changes or ends the symbol's dispute after a trusted bar of the newest stored day, by the
-- bar's verdict.
local function settle(bar, stored, authority, verdict, dispute)
  local symbol, is_internal = bar.symbol, stored.authority == 'INTERNAL'
  if authority == 'INTERNAL' then
    if verdict == 'replaced' and not is_internal then
      open_dispute(symbol, bar.day, now, stored)
    end
  elseif not is_internal then
    if dispute and reaches(bar, dispute) then end_dispute(symbol) end
  else
    redis.call('SREM', key('foreign:' .. symbol), date_of(bar.json, symbol))
    local since = dispute and dispute.since or tonumber(stored.stored_at)
    if verdict == 'kept' then
      local displaced = dispute and displaced_of(dispute)
      local newer = displaced and newest_verdict(bar, displaced, authority)
      if not displaced or newer == 'replaced' or newer == 'confirmed' then
        open_dispute(symbol, bar.day, since, {authority = authority, figures = bar.figures,
          stored_at = now_text, json = bar.json})
      end
    elseif verdict == 'replaced' and outgrows(stored, bar) then
      contradict(symbol, since, stored)
    else
      end_dispute(symbol)
    end
  end
end
