-- What every script of the store shares. KEYS[1] is the root of its keys, "{market}:LAYOUT".
--
-- last    SYMBOL -> "day authority volume high low close stored_at json": the newest trusted bar
-- bars:SYMBOL  the trusted bars before it: a list of encoded bars, one a day, sorted by day; each
--         names its day at the same place (date_of)
-- public  SYMBOL -> "day laid_at actors volume json": the overlay, and who answers for it: its sender,
--         or SENDER,HOLDER when a held bar spoke for it
-- held    SYMBOL -> "network day held_at actor volume high low close open;" each: public bars that
--         wait for a second, independent actor
-- laid    SYMBOL -> "at at ...": when an overlay was laid of it lately, also one that has ended
-- oldest_public  "day at": all overlays and held bars are of that trading day, and none came before
-- trusted_at, fetched_at: when a trusted source, and our own fetch, last brought a valid bar
-- changes the change log: one entry a change, ids REVISION-N, one field: the authority of a changed
--         bar -> the bar, or 'withdrawn' (an overlay's end) -> symbol, or 'replaced' (read the whole
--         series again) -> symbol
-- Days are epoch seconds of the day's midnight in UTC; *_at are Redis TIME in milliseconds.

local function key(name) return KEYS[1] .. ':' .. name end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local MAX_UNPACK = 3000 -- values given to one call: Lua's C stack holds 8,000

-- A command that takes any number of values, with as many calls as they need.
local function write_all(command, at, values)
  for from = 1, #values, MAX_UNPACK do
    redis.call(command, at, unpack(values, from, math.min(#values, from + MAX_UNPACK - 1)))
  end
end

local revision -- of this call, drawn at the first change
local changes = 0
local log_key, id_prefix = key('changes'), nil

local function log(what, bar_or_symbol)
  if not revision then
    revision = redis.call('INCR', key('revision'))
    id_prefix = string.format('%.0f-', revision)
  end
  redis.call('XADD', log_key, string.format('%s%d', id_prefix, changes), what, bar_or_symbol)
  changes = changes + 1
end

-- Trimmed by count to whole revisions, so that a reader who finds the first entry of the revision
-- after its own has found all that followed.
local function trim(length)
  if changes == 0 or redis.call('XLEN', key('changes')) < length * 1.1 then return end
  redis.call('XTRIM', key('changes'), 'MAXLEN', length)
  local first = redis.call('XRANGE', key('changes'), '-', '+', 'COUNT', 1)[1]
  local floor, n = string.match(first[1], '^(%d+)-(%d+)$')
  if n ~= '0' then
    floor = string.format('%.0f', floor + 1)
    redis.call('XTRIM', key('changes'), 'MINID', floor .. '-0')
  end
  redis.call('SET', key('log_floor'), floor)
end

-- A server that restarted, or took over, may hold an older state under revisions that were given
-- out before: it is another life, and has another epoch.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')

local function live(new_epoch)
  if redis.call('GET', key('run_id')) ~= run_id then
    redis.call('SET', key('run_id'), run_id)
    redis.call('SET', key('epoch'), new_epoch)
  end
  local epoch = redis.call('GET', key('epoch'))
  if not epoch then
    redis.call('SET', key('epoch'), new_epoch)
    epoch = new_epoch
  end
  return epoch
end

local function read_overlay(text)
  local day, laid_at, actors, volume, json = string.match(text, '^(%S+) (%S+) (%S+) (%S+) (.+)$')
  return {day = tonumber(day), came_at = tonumber(laid_at), actors = actors,
    figures = volume, json = json}
end

local function withdraw(symbol)
  if redis.call('HDEL', key('public'), symbol) == 1 then log('withdrawn', symbol) end
end

local function withdraw_where(ends)
  local found = redis.call('HGETALL', key('public'))
  for i = 1, #found, 2 do
    if ends(read_overlay(found[i + 1])) then withdraw(found[i]) end
  end
end

local function read_held(text)
  local held = {}
  for network, day, held_at, actor, figures in
      string.gmatch(text or '', '(%S+) (%S+) (%S+) (%S+) ([^;]+);') do
    held[#held + 1] = {network = network, day = tonumber(day), came_at = tonumber(held_at),
      actor = actor, figures = figures}
  end
  return held
end

local function write_held(symbol, held)
  if #held == 0 then
    redis.call('HDEL', key('held'), symbol)
    return
  end
  local texts = {}
  for i, bar in ipairs(held) do
    texts[i] = string.format('%s %.0f %.0f %s %s;', bar.network, bar.day, bar.came_at, bar.actor,
      bar.figures)
  end
  redis.call('HSET', key('held'), symbol, table.concat(texts))
end

-- Held bars are served to nobody, so their end is no change of the market. Returns how many ended.
local function let_go_where(ends)
  local ended = 0
  local found = redis.call('HGETALL', key('held'))
  for i = 1, #found, 2 do
    local kept, held = {}, read_held(found[i + 1])
    for _, bar in ipairs(held) do
      if not ends(bar) then kept[#kept + 1] = bar end
    end
    if #kept < #held then write_held(found[i], kept) end
    ended = ended + #held - #kept
  end
  return ended
end

-- A trusted source has spoken of the symbol.
local function end_public(symbol)
  withdraw(symbol)
  redis.call('HDEL', key('held'), symbol)
end

-- Every script call asks whether a public bar's time is over, so that is remembered: reading them all,
-- of which senders decide how many they are, took a hundred times as long as the rest of a call. And
-- they are read once a second at most, or senders could decide how often.
local MOST_LATE = 1000

local function note_public(day_text)
  redis.call('SET', key('oldest_public'), string.format('%s %.0f', day_text, now), 'NX')
end

-- A public bar ends with its day, and a trust window (at most a second more) after it came, whoever
-- looks first.
local function expire_public(trading_day, window)
  local noted = redis.call('GET', key('oldest_public'))
  if not noted then return end
  local day, at = string.match(noted, '^(%S+) (%S+)$')
  if tonumber(day) == trading_day and now - at < window then return end
  local oldest
  local function ends(bar)
    if bar.day ~= trading_day or now - bar.came_at >= window then return true end
    oldest = math.min(oldest or now, bar.came_at)
    return false
  end
  withdraw_where(ends)
  let_go_where(ends)
  redis.call('DEL', key('oldest_public'))
  if oldest then
    oldest = math.max(oldest, now - window + MOST_LATE)
    redis.call('SET', key('oldest_public'), string.format('%.0f %.0f', trading_day, oldest))
  end
end

-- The trust window never moves back. What we fetched ourselves is kept apart: two core nodes that
-- have lost the upstream would hold each other's window open for ever.
local function trust(at, authority)
  local trusted_at = tonumber(redis.call('GET', key('trusted_at')) or 0)
  if at > trusted_at then redis.call('SET', key('trusted_at'), string.format('%.0f', at)) end
  if authority == 'CORE' then redis.call('SET', key('fetched_at'), string.format('%.0f', now)) end
end

-- A fence ends with the life of the store that gave it out: what was read in one life (a follower's
-- place, say) must not be written into another, which may lack what was written before.
local function life_of(fence) return string.match(fence, '^%d+:%x+:(%x+)$') end

local function fenced(fence)
  return redis.call('GET', key('lease')) ~= fence or life_of(fence) ~= run_id
end

-- A server that is out of memory refuses a script's first write only, and not if it deletes; all that
-- follow may then grow the store further. This writes nothing, and is refused.
local function refuse_without_memory() redis.call('SETRANGE', key('epoch'), 0, '') end

local FENCED = redis.error_reply('FENCED the lease is no longer held by this worker')
