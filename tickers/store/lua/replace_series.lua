-- This script replaces a symbol's whole series in one step. Stored bars of days after the answer's last
-- stay, but for those that only INTERNAL wrote of days before the trading day, and for all if the core
-- network has replaced the series.
--
-- Days that are ``gone`` are removed and don't count as lost: three answers in a row lacked them, or the
-- exchanges were closed. An answer that an operator accepts may lose any number of days.
--
-- The header: authority, fence, latest_day, trading_day, new_epoch, most_symbols, window (the trust
--       window, ms), age (of the data, ms), log_length, history_start (day), first_date (the same as
--       YYYY-MM-DD), replaces_newest (false: the newest day is decided by the merge table; true: the
--       core network has said 'series replaced'), may_lose (whether it may lose days), gone (stored
--       days, YYYY-MM-DD each, that go), trading_date (the trading day as YYYY-MM-DD), symbol, and where
--       there are bars day and figures of the last.
-- Then the bars, sorted by day, one a day, none of a day after the latest.
-- Returns epoch, revision, verdict.

local authority, symbol, first_date = header.authority, header.symbol, header.first_date
local FIRST = 2

-- An answer that would lose more than this part of the stored days is refused, unless the core network,
-- which has the same rule, has said that it replaced its own series.
local MOST_LOST = 0.02

if fenced(header.fence) then return FENCED end
refuse_without_memory()
local epoch = live(header.new_epoch)

expire_public(header.trading_day, header.window)
expire_disputes()

local function current_revision()
  return revision or tonumber(redis.call('GET', key('revision')) or 0)
end

-- Returns for an answer that changes nothing; what ended by its time has changed all the same.
local function refused(verdict)
  if changes > 0 then write_revisions() end
  return {epoch, current_revision(), verdict}
end

local gone = {}
for _, date in ipairs(header.gone) do gone[date] = true end

local stored_newest = read_last(redis.call('HGET', key('last'), symbol))
if not stored_newest and authority ~= 'CORE' and
    redis.call('HLEN', key('last')) >= header.most_symbols then
  return refused('full')
end

if #ARGV < FIRST then return refused('future') end

local series, has = {}, {}
for at = FIRST, #ARGV do
  series[#series + 1] = ARGV[at]
  has[date_of(ARGV[at], symbol)] = true
end
local answered = #series
local newest = {symbol = symbol, day = header.day, day_text = string.format('%.0f', header.day),
  figures = header.figures, json = series[answered]}
local newest_date = date_of(newest.json, symbol)

-- Days that only INTERNAL wrote don't count as history; after the answer's last day, only the trading
-- day's may be a newer bar.
local foreign = {}
for _, date in ipairs(redis.call('SMEMBERS', key('foreign:' .. symbol))) do foreign[date] = true end

local function stays(date)
  if foreign[date] then return date == header.trading_date end
  return not header.replaces_newest
end

-- This counts the stored days, and those that would be lost.
local bars_key = key('bars:' .. symbol)
local stored = redis.call('LRANGE', bars_key, 0, -1)
if stored_newest then stored[#stored + 1] = stored_newest.json end
local stored_days, lost = 0, 0
for _, json in ipairs(stored) do
  local date = date_of(json, symbol)
  if gone[date] and not has[date] then
    -- The day is neither kept nor counted as lost.
  elseif date > newest_date then
    if stays(date) then series[#series + 1] = json end
  elseif date >= first_date and not foreign[date] then
    stored_days = stored_days + 1
    if not has[date] then lost = lost + 1 end
  end
end
if not header.replaces_newest and not header.may_lose and lost > stored_days * MOST_LOST then
  return refused('loses_days')
end

end_public(symbol)
trust(now - header.age, authority)

-- If the newest stored day is gone, the answer's newest bar takes its place.
if stored_newest and gone[date_of(stored_newest.json, symbol)] and
    not has[date_of(stored_newest.json, symbol)] then
  stored_newest = nil
end

local verdict = 'added'
local dispute = stored_newest and dispute_of(symbol, stored_newest.day)
local falls_back -- the newest bar, if it lies between the answer's last day and a stored one that is gone
if #series > answered then
  verdict = 'kept'
  if not stored_newest or series[#series] ~= stored_newest.json then
    local json = series[#series]
    local date = date_of(json, symbol)
    falls_back = {day_text = string.format('%.0f', day_of(date)), figures = figures_in(json),
      json = json, authority = foreign[date] and 'INTERNAL' or authority}
    end_dispute(symbol)
  end
elseif stored_newest and stored_newest.day == newest.day then
  verdict = newest_verdict(newest, stored_newest, authority, dispute and dispute.since)
  if header.replaces_newest and verdict == 'kept' then
    verdict = 'replaced'
  end
  settle(newest, stored_newest, authority, verdict, dispute)
  if verdict == 'kept' then series[answered] = stored_newest.json end
else
  if is_open(dispute) then end_dispute(symbol) end -- about a day that this answer writes, or lacks
  local returned = dispute_of(symbol, newest.day)
  if returned and not is_open(returned) and reaches(newest, returned) then end_dispute(symbol) end
end

local same = #stored == #series
for i = 1, #series do
  if not same then break end
  same = stored[i] == series[i]
end

if not same then
  series[#series] = nil -- the newest, which ``last`` holds
  redis.call('DEL', bars_key)
  redis.call('HDEL', key('usual'), symbol)
  write_all('RPUSH', bars_key, series)
  log_replaced(symbol)
end

for date in pairs(foreign) do
  if has[date] or not (date > newest_date and stays(date)) then
    redis.call('SREM', key('foreign:' .. symbol), date)
  end
end

local takes_newest = verdict == 'added' or verdict == 'replaced' or verdict == 'confirmed'
if takes_newest and same then log_bar(authority, newest, true) end
write_revisions()
if takes_newest then
  redis.call('HSET', key('last'), symbol, write_last(newest, authority))
  if authority == 'CORE' then redis.call('ZADD', key('changed'), revision, symbol) end
elseif falls_back then
  redis.call('HSET', key('last'), symbol,
    write_last(falls_back, falls_back.authority, stored_newest and stored_newest.stored_at or now_text))
end
local loaded = string.format('%.0f', header.history_start)
if redis.call('HGET', key('loaded'), symbol) ~= loaded then
  redis.call('HSET', key('loaded'), symbol, loaded)
end
trim(header.log_length)
if same and verdict ~= 'confirmed' then verdict = 'unchanged' end
return {epoch, current_revision(), same and verdict or 'replaced'}
