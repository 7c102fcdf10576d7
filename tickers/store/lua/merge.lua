-- This script decides for each bar by the merge table, stores it, and logs what changed, in one step.
--
-- The header: authority, fence, latest_day, trading_day, new_epoch, most_symbols, window (the trust
--       window, ms), age (of the data, ms), log_length, history_start (day); of public bars actor,
--       late_after (ms until a trusted bar is late; none: never served) and network (the actor's; empty:
--       its bars need no second actor); of INTERNAL ones actor: the peer, as far as it is known.
-- Then a bar each: symbol, day, figures, json; a public one also what it was judged by: its anchor (a
--       close) and the bar before the newest ('-': by none).
-- Returns epoch, revision, and a verdict for each bar.

local authority, fence = header.authority, header.fence
local latest_day, trading_day, window = header.latest_day, header.trading_day, header.window
local history_start, most_symbols = header.history_start, header.most_symbols
local actor, network, late_after = header.actor, header.network, header.late_after
local is_internal = authority == 'INTERNAL'
local FIRST, STRIDE = 2, authority == 'PUBLIC' and 6 or 4

if authority == 'CORE' and fence == '' then return FENCED end
if fence ~= '' and fenced(fence) then return FENCED end
refuse_without_memory()
local epoch = live(header.new_epoch)

expire_public(trading_day, window)
expire_disputes()

local bars_prefix = key('bars:')

-- ``last`` of each symbol of the bars. Changes are written once, at the end.
local symbols, last = {}, {}
for at = FIRST, #ARGV, STRIDE do
  local symbol = ARGV[at]
  if not last[symbol] then
    last[symbol] = true
    symbols[#symbols + 1] = symbol
  end
end
local found = redis.call('HMGET', key('last'), unpack(symbols))
for i, symbol in ipairs(symbols) do
  last[symbol] = read_last(found[i])
end
read_disputes_of(symbols)
local known = redis.call('HLEN', key('last'))
local public_bars = redis.call('HLEN', key('public')) + redis.call('HLEN', key('held')) > 0

local function store_newest(bar, verdict, stored)
  bar.authority, bar.stored_at, bar.is_new = authority, now, true
  last[bar.symbol] = bar
  local followers_would_keep = verdict == 'replaced' and bar.shrinks
  if followers_would_keep then
    log_replaced(bar.symbol)
  else
    log_bar(authority, bar, stored and stored.day == bar.day)
  end
  return verdict
end

-- Returns the place of a bar's day in a history, and the bar stored there; else nil, the bar that it
-- comes before (nil: it comes last) and how many come after it. Most bars are recent, so the search
-- doubles its steps back from the end, then halves the rest.
local function find(bars, bar)
  local date, length = date_of(bar.json, bar.symbol), redis.call('LLEN', bars)
  local low, high, step, next_json = 0, length, 1, nil
  while low < high do
    local probe = math.max(high - step, math.floor((low + high) / 2))
    local json = redis.call('LINDEX', bars, probe - length)
    local found_date = date_of(json, bar.symbol)
    if found_date == date then return probe, json end
    if found_date < date then
      low = probe + 1
    else
      high, step, next_json = probe, step * 2, json
    end
  end
  return nil, next_json, length - low
end

local function note_foreign(bar)
  redis.call('SADD', key('foreign:' .. bar.symbol), date_of(bar.json, bar.symbol))
end

-- Notes that CORE or FOLLOWED have spoken of an earlier day, by which peers' bars are judged.
local function forget_foreign(bar)
  redis.call('HDEL', key('usual'), bar.symbol)
  redis.call('SREM', key('foreign:' .. bar.symbol), date_of(bar.json, bar.symbol))
end

-- A peer's bar can't be if a price is more than MOST_TIMES the reference or less than that part of it, or
-- its volume is more than MOST_VOLUMES times the largest of the last VOLUME_DAYS days, where the symbol
-- has ENOUGH_DAYS of them.
local MOST_TIMES, MOST_VOLUMES, VOLUME_DAYS, ENOUGH_DAYS = 10, 50, 60, 20
local ROUNDING = 1e-12 -- of a product of doubles; prices have less than twelve digits
local MOST_STEPS = 60

local MAX_VOLUME = 9007199254740992
local OPEN_AT = #'{"symbol":"","time":"2025-08-15T00:00:00Z","open":' + 1 -- but for the symbol

-- ``usual`` of each symbol of a peer's list.
local usual = {}
if is_internal then
  for i, text in ipairs(redis.call('HMGET', key('usual'), unpack(symbols))) do
    usual[symbols[i]] = text
  end
end

local function note_usual(bar, close, volume)
  local text = string.format('%s %.17g %.0f', bar.day_text, close, volume)
  usual[bar.symbol] = text
  redis.call('HSET', key('usual'), bar.symbol, text)
end

-- Returns the figures of the last bar before ``from`` (counted from the end) that not only INTERNAL
-- wrote.
local function trusted_figures(bar, from)
  local bars, foreign = bars_prefix .. bar.symbol, key('foreign:' .. bar.symbol)
  for at = from, from - MOST_STEPS, -1 do
    local json = redis.call('LINDEX', bars, at)
    if not json then return nil end
    if redis.call('SISMEMBER', foreign, date_of(json, bar.symbol)) == 0 then
      return figures_in(json)
    end
  end
end

-- Returns the largest volume of the last days that not only INTERNAL wrote, and how many they are.
local function largest_volume(bar)
  local foreign, most, count = {}, 0, 0
  for _, date in ipairs(redis.call('SMEMBERS', key('foreign:' .. bar.symbol))) do
    foreign[date] = true
  end
  for _, json in ipairs(redis.call('LRANGE', bars_prefix .. bar.symbol, -VOLUME_DAYS, -1)) do
    if not foreign[date_of(json, bar.symbol)] then
      most = math.max(most, volume_of({figures = figures_in(json)}))
      count = count + 1
    end
  end
  return most, count
end

-- Returns the close and the volume of a bar's figures.
local function close_and_volume(figures)
  local volume, close = string.match(figures, '^(%S+) %S+ %S+ (%S+)')
  return tonumber(close), tonumber(volume)
end

-- Returns what peers' bars of the newest stored day are judged by: the reference's close and a volume.
-- The volume is the largest once it was read for that day, else the last day's, which isn't more.
local function judged_by(bar, notes)
  local day, close, volume = string.match(usual[bar.symbol] or '', '^(%S+) (%S+) (%S+)')
  if day == bar.day_text then return tonumber(close), tonumber(volume) end
  local figures = trusted_figures(bar, -1)
  if not figures then return nil end
  close, volume = close_and_volume(figures)
  if notes then note_usual(bar, close, volume) end
  return close, volume
end

-- Returns the verdict on a peer's bar that can't be, else nil. ``from`` is the place of the bar before
-- it, counted from the end. ``notes``: whether to note what it was judged by (a bar that changes nothing
-- writes nothing).
local function impossible(bar, stored, from, notes)
  local reference, usual_volume
  if bar.day == stored.day then
    reference, usual_volume = judged_by(bar, notes)
  else
    local figures = bar.day > stored.day and stored.authority ~= 'INTERNAL' and stored.figures
      or trusted_figures(bar, from)
    if figures then reference, usual_volume = close_and_volume(figures) end
  end
  reference = reference or tonumber(close_of(stored))
  local volume, high, low = string.match(bar.figures, '^(%S+) (%S+) (%S+)')
  local opened = tonumber(string.match(bar.json, '^([^,]+)', OPEN_AT + #bar.symbol))
  local most, least = reference * MOST_TIMES * (1 + ROUNDING), reference / MOST_TIMES * (1 - ROUNDING)
  if tonumber(high) > most or opened > most or tonumber(low) < least or opened < least then
    return 'impossible_price'
  end
  volume = tonumber(volume)
  if not usual_volume or volume <= MOST_VOLUMES * usual_volume then return nil end
  local dispute = dispute_of(bar.symbol, stored.day)
  local ours = stored.authority ~= 'INTERNAL' and stored or is_open(dispute) and displaced_of(dispute)
  if ours and volume <= MOST_VOLUMES * volume_of(ours) then return nil end
  local most, count = largest_volume(bar)
  if bar.day > stored.day and ours then most, count = math.max(most, volume_of(ours)), count + 1 end
  if count < ENOUGH_DAYS then most = MAX_VOLUME end
  if notes then note_usual(bar, reference, most) end
  return volume > MOST_VOLUMES * most and 'impossible_volume' or nil
end

local function merge_history(bar, stored)
  local bars = bars_prefix .. bar.symbol
  local place, json, after = find(bars, bar)
  if not place then
    local wrong = is_internal and impossible(bar, stored, -after - 1)
    if wrong then return wrong end
    if public_bars then end_public(bar.symbol) end
    if is_internal then note_foreign(bar) else forget_foreign(bar) end
    if json then
      redis.call('LINSERT', bars, 'BEFORE', json, bar.json)
    else
      redis.call('RPUSH', bars, bar.json)
    end
    log_bar(authority, bar)
    return 'added'
  end
  if public_bars then end_public(bar.symbol) end
  if json == bar.json then
    if not is_internal then forget_foreign(bar) end
    return 'unchanged'
  end
  if authority ~= 'CORE' then return 'kept' end
  forget_foreign(bar)
  redis.call('LSET', bars, place, bar.json)
  -- Followers never rewrite history bar by bar, so a rewritten day is a replaced series.
  log_replaced(bar.symbol)
  return 'replaced'
end

-- Adds a bar of a day after those stored. An open dispute about the day before is ended first.
local function add_newest(bar, stored)
  local dispute = dispute_of(bar.symbol, bar.day)
  local before = stored and dispute_of(bar.symbol, stored.day)
  if is_open(before) then stored = give_back(bar.symbol, before) end
  if stored then redis.call('RPUSH', bars_prefix .. bar.symbol, stored.json) end
  if is_internal then note_foreign(bar) end
  if not dispute or reaches(bar, dispute) then end_dispute(bar.symbol) end
  return store_newest(bar, 'added', stored)
end

local function merge_trusted(bar)
  if bar.day > latest_day then return 'future' end
  if authority ~= 'CORE' and bar.day < history_start then return 'too_old' end
  local stored = last[bar.symbol]
  if is_internal and is_settled(bar.symbol, bar.day)
      and not is_source_silent() then
    return stored and stored.json == bar.json and 'unchanged' or 'disputed'
  end
  local verdict, dispute
  if stored and bar.day == stored.day then
    -- What an INTERNAL bar of that day opens or changes needs no earlier dispute.
    dispute = not is_internal and dispute_of(bar.symbol, bar.day) or nil
    verdict = newest_verdict(bar, stored, authority, dispute and dispute.since)
  end
  if is_internal and stored and bar.day >= stored.day and verdict ~= 'unchanged' then
    local wrong = impossible(bar, stored, -1, verdict == 'replaced')
    if wrong then return wrong end
  end
  if not stored then
    if authority ~= 'CORE' and known >= most_symbols then return 'full' end
    known = known + 1
    return add_newest(bar, nil)
  end
  if bar.day < stored.day then return merge_history(bar, stored) end
  if public_bars then end_public(bar.symbol) end
  if bar.day > stored.day then return add_newest(bar, stored) end
  settle(bar, stored, authority, verdict, dispute)
  if verdict == 'unchanged' or verdict == 'kept' then return verdict end
  bar.shrinks = not outgrows(bar, stored)
  return store_newest(bar, verdict, stored)
end

-- The largest difference of two prices that confirm each other, how many times the held bar's volume
-- the second bar's may be, and how many bars of a symbol are held.
local NEAR, MOST_VOLUME, MOST_HELD = 0.005, 2, 16

-- Returns "volume high low close open", all that a bar says of its day.
local function whole_figures_of(bar)
  return bar.figures .. ' ' .. string.match(bar.json, '"open":([^,]+)')
end

local function numbers_of(figures)
  local numbers = {}
  for text in string.gmatch(figures, '%S+') do numbers[#numbers + 1] = tonumber(text) end
  return numbers
end

-- Returns whether a bar confirms a held one in all its figures. The volume is among them, as a larger one
-- alone would keep every later bar from being served.
local function agrees(figures, held_figures)
  for i = 2, #held_figures do
    if math.abs(figures[i] - held_figures[i]) > NEAR * held_figures[i] then return false end
  end
  return figures[1] <= MOST_VOLUME * held_figures[1]
end

-- Removes the oldest bar of the network that has most, so that no network drives out the others'.
local function make_room(held)
  if #held < MOST_HELD then return end
  local count, crowded = {[network] = 1}, 1
  for _, bar in ipairs(held) do count[bar.network] = (count[bar.network] or 0) + 1 end
  for i, bar in ipairs(held) do
    if count[bar.network] > count[held[crowded].network] then crowded = i end
  end
  table.remove(held, crowded)
end

-- Returns the actor of another network whose held bar agrees. If there is none, the bar is held until
-- one comes, in place of the same actor's held bar.
local function corroborator_of(bar)
  local text, kept = whole_figures_of(bar), {}
  local figures = numbers_of(text)
  for _, other in ipairs(read_held(redis.call('HGET', key('held'), bar.symbol))) do
    if other.actor ~= actor then
      if other.network ~= network and agrees(figures, numbers_of(other.figures)) then
        return other.actor
      end
      kept[#kept + 1] = other
    end
  end
  make_room(kept)
  kept[#kept + 1] = {network = network, day = bar.day, came_at = now, actor = actor, figures = text}
  write_held(bar.symbol, kept)
  note_public(bar.day_text)
  return nil
end

-- A symbol's overlay changes only so often, whoever sends and however many they are. Otherwise senders
-- would decide how far back the change log reaches, and a process that it doesn't reach back to must
-- read the whole market. A process that is read at all reads the log every 300 s. In that time 287
-- symbols have at worst
--   laid       5 * 10 each = 14,350 entries
--   withdrawn  one more each = 14,637 (each laid one ends, and one that stood before)
--   trusted    one each cycle of 5 s = 17,220
-- together 46,207 (9,200 a minute) of the log's 50,000: it is long enough for 310 symbols.
local MOST_LAID, LATELY = 10, 60000

local function laid_lately(symbol)
  local times = {}
  for at in string.gmatch(redis.call('HGET', key('laid'), symbol) or '', '%S+') do
    -- Times in the future are of a clock that was set back since.
    if math.abs(now - at) < LATELY then times[#times + 1] = at end
  end
  return times
end

local function reference_moved(bar)
  if bar.before == '-' then return false end
  return bar.before ~= (redis.call('LINDEX', bars_prefix .. bar.symbol, -1) or '')
end

local function merge_public(bar)
  local stored = last[bar.symbol]
  if not stored then return 'unknown' end
  if bar.day ~= trading_day or bar.day < stored.day then return 'other_day' end
  local text = redis.call('HGET', key('public'), bar.symbol)
  local served = text and read_overlay(text) or (stored.day == bar.day and stored or nil)
  if served and volume_of(bar) < volume_of(served) then return 'smaller_volume' end
  if served and bar.json == served.json then return 'unchanged' end
  if bar.anchor ~= close_of(stored) or reference_moved(bar) then return 'anchor_moved' end
  if not late_after then return 'judged' end
  local spoken_at = math.max(tonumber(stored.stored_at), tonumber(redis.call('GET', key('cycle_at')) or 0))
  if now - spoken_at < late_after then return 'judged' end
  local laid_at = laid_lately(bar.symbol)
  if #laid_at >= MOST_LAID then return 'judged' end
  local actors = actor
  if network ~= '' then
    local corroborator = corroborator_of(bar)
    if not corroborator then return 'held' end
    actors = actor .. ',' .. corroborator
  end
  redis.call('HDEL', key('held'), bar.symbol)
  redis.call('HSET', key('public'), bar.symbol,
    string.format('%s %s %s %.0f %s', bar.day_text, now_text, actors, volume_of(bar), bar.json))
  laid_at[#laid_at + 1] = now_text
  redis.call('HSET', key('laid'), bar.symbol, table.concat(laid_at, ' '))
  note_public(bar.day_text)
  log('PUBLIC', bar.json)
  return 'laid'
end

local function write_newest()
  local texts, revisions, senders = {}, {}, {}
  local senders_before = is_internal and redis.call('HMGET', key('senders'), unpack(symbols)) or {}
  for i, symbol in ipairs(symbols) do
    local bar = last[symbol]
    if bar and bar.is_new then
      texts[#texts + 1], texts[#texts + 2] = symbol, write_last(bar, authority)
      revisions[#revisions + 1], revisions[#revisions + 2] = revision, symbol
      if senders_before[i] ~= actor then
        senders[#senders + 1], senders[#senders + 2] = symbol, actor
      end
    end
  end
  write_all('HSET', key('last'), texts)
  if authority == 'CORE' then write_all('ZADD', key('changed'), revisions) end
  if is_internal then write_all('HSET', key('senders'), senders) end
end

local merge_one = authority == 'PUBLIC' and merge_public or merge_trusted
local NOT_VALID = {future = true, too_old = true, full = true, disputed = true,
  impossible_price = true, impossible_volume = true}
local verdicts, valid, wrong = {}, false, 0
for at = FIRST, #ARGV, STRIDE do
  local verdict = merge_one({
    symbol = ARGV[at], day = tonumber(ARGV[at + 1]), day_text = ARGV[at + 1],
    figures = ARGV[at + 2], json = ARGV[at + 3], anchor = ARGV[at + 4],
    before = ARGV[at + 5],
  })
  if not NOT_VALID[verdict] then valid = true end
  if verdict == 'impossible_price' or verdict == 'impossible_volume' then wrong = wrong + 1 end
  verdicts[#verdicts + 1] = verdict
end
if changes > 0 then
  write_revisions()
  write_newest()
end
if wrong > 0 then count_against(actor, 'impossible', wrong) end
if valid and authority ~= 'PUBLIC' then trust(now - header.age, authority) end
trim(header.log_length)
return {epoch, revision or tonumber(redis.call('GET', key('revision')) or 0), verdicts}
