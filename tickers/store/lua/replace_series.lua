-- Replaces a symbol's series whole, in one step; stored bars of days after the answer's last stay.
--
-- ARGV: authority, fence, latest day, trading day, new epoch, most symbols, trust window (ms),
--       age of the data (ms), log length, history start (day), the same as YYYY-MM-DD, newest
--       ('table': the newest day is decided by the merge table; 'replace': the core network has said
--       'series replaced'), symbol, the last bar's day and figures, then the bars, sorted by day,
--       one a day, none of a day after the latest
-- Returns epoch, revision, verdict.

local authority, fence = ARGV[1], ARGV[2]
local trading_day = tonumber(ARGV[4])
local epoch = live(ARGV[5])
local most_symbols, window, age = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local log_length, history_start = tonumber(ARGV[9]), tonumber(ARGV[10])
local first_date, newest_rule, symbol = ARGV[11], ARGV[12], ARGV[13]
local FIRST = 16

-- An answer that would lose more of the stored days than this is not a history, unless the core
-- network, which judges by the same rule, has said that it replaced its own.
local MOST_LOST = 0.02

if fenced(fence) then return FENCED end
refuse_without_memory()

expire_public(trading_day, window)

local function current_revision()
  return revision or tonumber(redis.call('GET', key('revision')) or 0)
end

local stored_newest = read_last(redis.call('HGET', key('last'), symbol))
if not stored_newest and authority ~= 'CORE' and
    redis.call('HLEN', key('last')) >= most_symbols then
  return {epoch, current_revision(), 'full'}
end

if #ARGV < FIRST then return {epoch, current_revision(), 'future'} end

local series, has = {}, {}
for at = FIRST, #ARGV do
  series[#series + 1] = ARGV[at]
  has[date_of(ARGV[at], symbol)] = true
end
local answered = #series
local newest = {day = tonumber(ARGV[14]), day_text = ARGV[14], figures = ARGV[15],
  json = series[answered]}
local newest_date = date_of(newest.json, symbol)

-- What is stored, and what would be lost.
local bars_key = key('bars:' .. symbol)
local stored = redis.call('LRANGE', bars_key, 0, -1)
if stored_newest then stored[#stored + 1] = stored_newest.json end
local stored_days, lost = 0, 0
for _, json in ipairs(stored) do
  local date = date_of(json, symbol)
  if date > newest_date then
    series[#series + 1] = json
  elseif date >= first_date then
    stored_days = stored_days + 1
    if not has[date] then lost = lost + 1 end
  end
end
if newest_rule ~= 'replace' and lost > stored_days * MOST_LOST then
  return {epoch, current_revision(), 'loses_days'}
end

end_public(symbol)
trust(now - age, authority)

local verdict = 'added'
if stored_newest and stored_newest.day > newest.day then
  verdict = 'kept'
elseif stored_newest and stored_newest.day == newest.day then
  verdict = newest_verdict(newest, stored_newest, authority)
  if newest_rule == 'replace' and verdict == 'kept' then
    verdict = 'replaced'
  end
  if verdict == 'kept' then series[answered] = stored_newest.json end
end

local same = #stored == #series
for i = 1, #series do
  if not same then break end
  same = stored[i] == series[i]
end

if not same then
  series[#series] = nil -- the newest, which ``last`` holds
  redis.call('DEL', bars_key)
  write_all('RPUSH', bars_key, series)
  log('replaced', symbol)
end

if verdict == 'added' or verdict == 'replaced' or verdict == 'confirmed' then
  redis.call('HSET', key('last'), symbol, write_last(newest, authority))
  if same then log(authority, newest.json) end
  if authority == 'CORE' then redis.call('ZADD', key('changed'), revision, symbol) end
end
local loaded = string.format('%.0f', history_start)
if redis.call('HGET', key('loaded'), symbol) ~= loaded then
  redis.call('HSET', key('loaded'), symbol, loaded)
end
trim(log_length)
if same and verdict ~= 'confirmed' then verdict = 'unchanged' end
return {epoch, current_revision(), same and verdict or 'replaced'}
