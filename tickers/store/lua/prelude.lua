-- The prelude is shared by all scripts of the store and describes its keys. KEYS[1] is the root of the
-- keys, "{market}:SCHEMA"; ARGV[1] is the header, a JSON object whose fields each script lists.
--
-- last    SYMBOL -> "day authority volume high low close stored_at revision json": the newest trusted
--         bar, and the revision at which it changed last
-- bars:SYMBOL  the trusted bars before it: a list of encoded bars, one a day, sorted by day; each
--         names its day at the same place (date_of)
-- public  SYMBOL -> "day laid_at actors volume json": the overlay and its actors: its sender, or
--         SENDER,HOLDER when the HOLDER's held bar confirmed it
-- held    SYMBOL -> "network day held_at actor volume high low close open;" each: public bars that
--         wait for a second, independent actor
-- laid    SYMBOL -> "at at ...": when an overlay was laid of it lately, also one that has ended
-- oldest_public  "day at": all overlays and held bars are of that trading day, and none came before
-- revisions  SYMBOL -> "history day revision day revision ...", the latest day first: the revision at
--         which the bar of each of the last ten days that changed did so last, and that of all other
--         bars: of the last replacement, or of a day before those ten. None of the days' is below it.
--         What ``last`` says of the newest day comes on top: to change that day writes nothing here.
-- removed  SYMBOL -> the revision at which the symbol left the market; gone when it comes back, whose
--         history is then of that revision: who knew it before reads it whole
-- suspects  SYMBOL -> JSON (tickers/suspects.py): of which a trusted source says what can't be right
-- replaced_at  SYMBOL -> when closed days of its series were adjusted last
-- trading_days  days (YYYY-MM-DD) that the market has shown to be trading days, whatever the calendar says
-- listed  SYMBOL -> "EXCHANGE DAY": the exchange that the universe names, and the day on which it began to
--         name it in place of another; 0 where it never named another
-- disputed  SYMBOL -> "day since - -" or "day since - - authority volume high low close stored_at json"
--         while an INTERNAL bar of that day stands over that displaced bar (or over none); "day since
--         volume span" when it has returned, and INTERNAL is refused until CORE or FOLLOWED reach these
-- oldest_dispute  no open dispute began before it
-- senders  SYMBOL -> the peer whose INTERNAL bar ``last`` holds, or held
-- usual  SYMBOL -> "day close volume": what peers' bars of that day are judged by (lua/merge.lua)
-- foreign:SYMBOL  the set of days (YYYY-MM-DD) that only INTERNAL wrote
-- against  "hour peer what" -> how often within that hour (of the Unix epoch) a peer was 'contradicted',
--         or sent what is 'impossible'
-- cycle_at, silent_at: when a cycle last spoke of every symbol, and from when on its source is silent
-- trusted_at, fetched_at: when a trusted source, and our own fetch, last brought a valid bar
-- changes the change log: one entry a change, ids REVISION-N, one field: the authority of a changed
--         bar -> the bar, or 'withdrawn' (an overlay's end) -> symbol, or 'replaced' (read the whole
--         series again) -> symbol, or 'removed' (it has left the market) -> symbol
-- Days are epoch seconds of the day's midnight in UTC; *_at are Redis TIME in milliseconds.

local header = cjson.decode(ARGV[1])

local function key(name) return KEYS[1] .. ':' .. name end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local MAX_UNPACK = 3000 -- values given to one call: Lua's C stack holds 8,000

-- Calls a command that takes any number of values, as often as these need.
local function write_all(command, at, values)
  for from = 1, #values, MAX_UNPACK do
    redis.call(command, at, unpack(values, from, math.min(#values, from + MAX_UNPACK - 1)))
  end
end

local revision, revision_text -- of this call, drawn at the first change
local changes = 0
local log_key, id_prefix = key('changes'), nil

local function log(what, bar_or_symbol)
  if not revision then
    revision = redis.call('INCR', key('revision'))
    revision_text = string.format('%.0f', revision)
    id_prefix = revision_text .. '-'
  end
  redis.call('XADD', log_key, string.format('%s%d', id_prefix, changes), what, bar_or_symbol)
  changes = changes + 1
end

-- What this call logs of each symbol's trusted bars, in that order: a day, WHOLE, or a list of them; and
-- the symbols whose ``revisions`` that changes.
local touched, revised, WHOLE = {}, {}, 'whole'

local function touch(symbol, day, needs_revising)
  local before = touched[symbol]
  if not before then
    touched[symbol] = day
  elseif type(before) == 'table' then
    before[#before + 1] = day
  else
    touched[symbol] = {before, day}
  end
  if needs_revising then revised[symbol] = true end
end

-- ``over_newest``: the bar is of the newest day stored.
local function log_bar(authority, bar, over_newest)
  log(authority, bar.json)
  touch(bar.symbol, bar.day_text, not over_newest)
end

local function log_replaced(symbol)
  log('replaced', symbol)
  touch(symbol, WHOLE, true)
end

-- Revisions: {history = revision, days = {{day, revision}, ...}}, the latest day first.
local MOST_DAYS = 10

local function read_revisions(text)
  local numbers, days = {}, {}
  for number in string.gmatch(text, '%S+') do numbers[#numbers + 1] = tonumber(number) end
  for at = 2, #numbers, 2 do days[#days + 1] = {numbers[at], numbers[at + 1]} end
  return {history = numbers[1], days = days}
end

local function revisions_text(revisions)
  local texts = {string.format('%.0f', revisions.history)}
  for _, one in ipairs(revisions.days) do
    texts[#texts + 1] = string.format('%.0f %.0f', one[1], one[2])
  end
  return table.concat(texts, ' ')
end

local function forget_earliest(revisions)
  local history = math.max(revisions.history, table.remove(revisions.days)[2])
  local later = {}
  for _, one in ipairs(revisions.days) do
    if one[2] > history then later[#later + 1] = one end
  end
  revisions.history, revisions.days = history, later
end

-- A bar of that day changed at a revision. tickers/store/revisions.py reckons alike, by the log.
local function revise(revisions, day, at)
  if at <= revisions.history then return end
  local days, place = revisions.days, 1
  while days[place] and days[place][1] > day do place = place + 1 end
  if days[place] and days[place][1] == day then
    days[place][2] = at
  else
    table.insert(days, place, {day, at})
    if #days > MOST_DAYS then forget_earliest(revisions) end
  end
end

-- ``last`` is as it was before this call.
local function write_revisions()
  local values = {}
  for symbol in pairs(revised) do
    local text = redis.call('HGET', key('revisions'), symbol)
    if not text then -- it is new, or comes back
      text = redis.call('HGET', key('removed'), symbol) or '0'
      redis.call('HDEL', key('removed'), symbol)
    end
    local revisions = read_revisions(text)
    local newest = redis.call('HGET', key('last'), symbol)
    if newest then
      local day, at = string.match(newest, '^(%S+) %S+ %S+ %S+ %S+ %S+ %S+ (%S+)')
      revise(revisions, tonumber(day), tonumber(at))
    end
    local days = touched[symbol]
    for _, day in ipairs(type(days) == 'table' and days or {days}) do
      if day == WHOLE then
        revisions = {history = revision, days = {}}
      else
        revise(revisions, tonumber(day), revision)
      end
    end
    values[#values + 1], values[#values + 2] = symbol, revisions_text(revisions)
  end
  write_all('HSET', key('revisions'), values)
end

-- Trims the log by count to whole revisions, so that a reader who finds the first entry of the revision
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

-- Returns the epoch, a new one in a new life. A server that is out of memory refuses a script whose first
-- write isn't a deletion. A script that reads the market must work even then, so it deletes first; what
-- it writes after that takes the place of what it deleted.
local function live(new_epoch)
  if redis.call('GET', key('run_id')) ~= run_id then
    redis.call('DEL', key('run_id'))
    redis.call('SET', key('run_id'), run_id)
    redis.call('SET', key('epoch'), new_epoch)
  end
  local epoch = redis.call('GET', key('epoch'))
  if not epoch then
    redis.call('DEL', key('epoch'))
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

-- Ends held bars and returns how many. Nobody is served them, so that is no change of the market.
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

-- Ends the symbol's public bars, as a trusted source has spoken of it.
local function end_public(symbol)
  withdraw(symbol)
  redis.call('HDEL', key('held'), symbol)
end

-- Every script call must know whether a public bar's time is over, so the oldest one's time is kept.
-- Reading all of them took a hundred times as long as the rest of a call, and senders decide how many
-- they are. They are read once a second at most, or senders would decide how often.
local MOST_LATE = 1000

local function note_public(day_text)
  redis.call('SET', key('oldest_public'), string.format('%s %.0f', day_text, now), 'NX')
end

-- Ends the public bars of another day, and those that came a trust window ago (a second later at most).
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
  redis.call('DEL', key('oldest_public')) -- first: see live
  withdraw_where(ends)
  let_go_where(ends)
  if oldest then
    oldest = math.max(oldest, now - window + MOST_LATE)
    redis.call('SET', key('oldest_public'), string.format('%.0f %.0f', trading_day, oldest))
  end
end

-- Removes a symbol from the market. Its dispute stays, which says whether INTERNAL is refused.
local function remove(symbol)
  end_public(symbol)
  for _, name in ipairs({'last', 'revisions', 'loaded', 'laid', 'senders', 'usual', 'suspects', 'replaced_at',
      'listed'}) do
    redis.call('HDEL', key(name), symbol)
  end
  redis.call('ZREM', key('changed'), symbol)
  redis.call('DEL', key('bars:' .. symbol), key('foreign:' .. symbol))
  log('removed', symbol)
  redis.call('HSET', key('removed'), symbol, string.format('%.0f', revision))
end

-- Counts of peers are bounded in number, though only senders with the token can add to them.
local HOUR, HOURS, MOST_COUNTED = 3600000, 24, 2000

local function count_against(peer, what, times)
  if not peer or peer == '' or times == 0 then return end
  local counts, hour = key('against'), math.floor(now / HOUR)
  if redis.call('HLEN', counts) >= MOST_COUNTED then
    for _, field in ipairs(redis.call('HKEYS', counts)) do
      if tonumber(string.match(field, '^%d+')) <= hour - HOURS then
        redis.call('HDEL', counts, field)
      end
    end
    if redis.call('HLEN', counts) >= MOST_COUNTED then return end
  end
  redis.call('HINCRBY', counts, string.format('%.0f %s %s', hour, peer, what), times)
end

-- Renews the trust window, which never moves back. The time of our own fetch is kept apart: two core
-- nodes that have lost the upstream would hold each other's window open for ever.
local function trust(at, authority)
  local trusted_at = tonumber(redis.call('GET', key('trusted_at')) or 0)
  if at > trusted_at then redis.call('SET', key('trusted_at'), string.format('%.0f', at)) end
  if authority == 'CORE' then redis.call('SET', key('fetched_at'), string.format('%.0f', now)) end
end

-- Returns the life of the store that gave out a fence. The fence is valid in no other: what was read in
-- one life (a follower's position, say) must not be written into another, which may lack the bars.
local function life_of(fence) return string.match(fence, '^%d+:%x+:(%x+)$') end

local function fenced(fence)
  return redis.call('GET', key('lease')) ~= fence or life_of(fence) ~= run_id
end

-- Fails if the server is out of memory. Such a server refuses only a script's first write, and all that
-- follow may grow the store further. This write changes nothing and is refused then, so it must come
-- before ``live``, which may write.
local function refuse_without_memory() redis.call('SETRANGE', key('epoch'), 0, '') end

local FENCED = redis.error_reply('FENCED the lease is no longer held by this worker')
