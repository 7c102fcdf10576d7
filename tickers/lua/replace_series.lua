-- Replaces a symbol's series whole, in one step; stored bars of days after the answer's last stay.
--
-- ARGV: authority, fence, latest day, trading day, new epoch, most symbols, trust window (ms),
--       age of the data (ms), log length, history start (day), newest ('table': the newest day is
--       decided by the merge table; 'replace': the core network has said 'series replaced'),
--       symbol, then a bar each, sorted by day: day, volume, high, low, close, json
-- Returns epoch, revision, verdict.

local authority, fence = ARGV[1], ARGV[2]
local latest_day, trading_day = tonumber(ARGV[3]), tonumber(ARGV[4])
local epoch = live(ARGV[5])
local most_symbols, window, age = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local log_length, history_start = tonumber(ARGV[9]), tonumber(ARGV[10])
local newest_rule, symbol = ARGV[11], ARGV[12]
local FIRST, STRIDE = 13, 6

-- An answer that would lose more of the stored days than this is not a history, unless the core
-- network, which judges by the same rule, has said that it replaced its own.
local MOST_LOST = 0.02

if fenced(fence) then return FENCED end
refuse_without_memory()

expire_overlays(trading_day, window)

local function current_revision()
  return revision or tonumber(redis.call('GET', key('revision')) or 0)
end

local stored_newest = read_last(redis.call('HGET', key('last'), symbol))
if not stored_newest and authority ~= 'CORE' and
    redis.call('HLEN', key('last')) >= most_symbols then
  return {epoch, current_revision(), 'full'}
end

local days, jsons, has = {}, {}, {}
local newest
for at = FIRST, #ARGV, STRIDE do
  local day = tonumber(ARGV[at])
  if day <= latest_day then
    newest = {symbol = symbol, day = day, volume = tonumber(ARGV[at + 1]), high_text = ARGV[at + 2],
      low_text = ARGV[at + 3], high = tonumber(ARGV[at + 2]), low = tonumber(ARGV[at + 3]),
      close_text = ARGV[at + 4], json = ARGV[at + 5]}
    days[#days + 1] = ARGV[at]
    jsons[#jsons + 1] = newest.json
    has[day] = true
  end
end
if not newest then return {epoch, current_revision(), 'future'} end

-- What is stored, and what would be lost.
local bars_key = key('bars:' .. symbol)
local stored = redis.call('ZRANGE', bars_key, 0, -1, 'WITHSCORES')
local stored_days, lost, same = 0, 0, true
for i = 1, #stored, 2 do
  local day = tonumber(stored[i + 1])
  if day > newest.day then
    days[#days + 1], jsons[#jsons + 1] = stored[i + 1], stored[i]
  elseif day >= history_start then
    stored_days = stored_days + 1
    if not has[day] then lost = lost + 1 end
  end
end
if newest_rule ~= 'replace' and lost > stored_days * MOST_LOST then
  return {epoch, current_revision(), 'loses_days'}
end

withdraw(symbol)
trust(now - age, authority)

local verdict = 'added'
if stored_newest and stored_newest.day > newest.day then
  verdict = 'kept'
elseif stored_newest and stored_newest.day == newest.day then
  verdict = newest_verdict(newest, stored_newest, authority)
  if newest_rule == 'replace' and verdict == 'kept' then
    verdict = 'replaced'
  end
  if verdict == 'kept' then
    for i = #days, 1, -1 do
      if tonumber(days[i]) == newest.day then jsons[i] = stored_newest.json; break end
    end
  end
end

same = #stored == #days * 2
if same then
  local by_day = {}
  for i = 1, #stored, 2 do by_day[tonumber(stored[i + 1])] = stored[i] end
  for i = 1, #days do
    if by_day[tonumber(days[i])] ~= jsons[i] then same = false; break end
  end
end

if not same then
  redis.call('DEL', bars_key)
  for from = 1, #days, MAX_UNPACK / 2 do
    local pairs_of = {}
    for i = from, math.min(#days, from + MAX_UNPACK / 2 - 1) do
      pairs_of[#pairs_of + 1] = days[i]
      pairs_of[#pairs_of + 1] = jsons[i]
    end
    redis.call('ZADD', bars_key, unpack(pairs_of))
  end
  log('replaced', symbol, '')
end

if verdict == 'added' or verdict == 'replaced' or verdict == 'confirmed' then
  newest.authority, newest.stored_at = authority, now
  redis.call('HSET', key('last'), symbol, write_last(newest))
  if same then log(authority, symbol, newest.json) end
  if authority == 'CORE' then redis.call('ZADD', key('changed'), revision, symbol) end
end
local loaded = string.format('%.0f', history_start)
if redis.call('HGET', key('loaded'), symbol) ~= loaded then
  redis.call('HSET', key('loaded'), symbol, loaded)
end
trim(log_length)
if same and verdict ~= 'confirmed' then verdict = 'unchanged' end
return {epoch, current_revision(), same and verdict or 'replaced'}
