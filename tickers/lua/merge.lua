-- merge: decides for each bar by the merge table, stores, and logs what changed, in one step.
--
-- ARGV: authority, fence, latest day, trading day, new epoch, most symbols, trust window (ms),
--       age of the data (ms), log length, actor, ms until a trusted bar is late (public), then a bar
--       each: symbol, day, volume, high, low, close, json, anchor (the close it was judged
--       against; empty from trusted sources)
-- Returns epoch, revision, and a verdict for each bar.

local authority, fence = ARGV[1], ARGV[2]
local latest_day, trading_day = tonumber(ARGV[3]), tonumber(ARGV[4])
local epoch = live(ARGV[5])
local most_symbols, window, age = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local log_length, actor, late_after = tonumber(ARGV[9]), ARGV[10], tonumber(ARGV[11])
local FIRST, STRIDE = 12, 8

if authority == 'CORE' and fence == '' then return FENCED end
if fence ~= '' and fenced(fence) then return FENCED end
refuse_without_memory()

expire_overlays(trading_day, window)

local symbols, last = {}, {}
for at = FIRST, #ARGV, STRIDE do
  if not last[ARGV[at]] then
    last[ARGV[at]] = true
    symbols[#symbols + 1] = ARGV[at]
  end
end
local found = redis.call('HMGET', key('last'), unpack(symbols))
for i, symbol in ipairs(symbols) do
  last[symbol] = read_last(found[i])
end
local overlays = redis.call('HLEN', key('public')) > 0

local function store(bar, verdict)
  local bars = key('bars:' .. bar.symbol)
  if verdict ~= 'added' then redis.call('ZREMRANGEBYSCORE', bars, bar.day, bar.day) end
  redis.call('ZADD', bars, bar.day, bar.json)
end

local function store_newest(bar, verdict)
  if verdict ~= 'confirmed' then store(bar, verdict) end
  bar.authority, bar.stored_at = authority, now
  last[bar.symbol] = bar
  redis.call('HSET', key('last'), bar.symbol, write_last(bar))
  local followers_would_keep = verdict == 'replaced' and authority == 'CORE' and bar.shrinks
  log(followers_would_keep and 'replaced' or authority, bar.symbol,
    followers_would_keep and '' or bar.json)
  if authority == 'CORE' then redis.call('ZADD', key('changed'), revision, bar.symbol) end
  return verdict
end

local function merge_history(bar)
  local stored = redis.call('ZRANGEBYSCORE', key('bars:' .. bar.symbol), bar.day, bar.day)[1]
  if stored == bar.json then return 'unchanged' end
  if stored and authority ~= 'CORE' then return 'kept' end
  store(bar, stored and 'replaced' or 'added')
  -- Followers never rewrite history bar by bar, so a rewritten day is a replaced series.
  if stored then log('replaced', bar.symbol, '') else log(authority, bar.symbol, bar.json) end
  return stored and 'replaced' or 'added'
end

local function merge_trusted(bar)
  if bar.day > latest_day then return 'future' end
  local stored = last[bar.symbol]
  if not stored then
    if authority ~= 'CORE' and redis.call('HLEN', key('last')) >= most_symbols then
      return 'full'
    end
    return store_newest(bar, 'added')
  end
  if overlays then withdraw(bar.symbol) end
  if bar.day > stored.day then return store_newest(bar, 'added') end
  if bar.day < stored.day then return merge_history(bar) end
  local verdict = newest_verdict(bar, stored, authority)
  if verdict == 'unchanged' or verdict == 'kept' then return verdict end
  bar.shrinks = not outgrows(bar, stored)
  return store_newest(bar, verdict)
end

local function merge_public(bar)
  local stored = last[bar.symbol]
  if not stored then return 'unknown' end
  if bar.day ~= trading_day or bar.day < stored.day then return 'other_day' end
  local text = redis.call('HGET', key('public'), bar.symbol)
  local served = text and read_overlay(text) or (stored.day == bar.day and stored or nil)
  if served and bar.volume < served.volume then return 'smaller_volume' end
  if served and bar.json == served.json then return 'unchanged' end
  if bar.anchor ~= stored.close_text then return 'anchor_moved' end
  if late_after < 0 then return 'judged' end
  local spoken_at = math.max(stored.stored_at, tonumber(redis.call('GET', key('cycle_at')) or 0))
  if now - spoken_at < late_after then return 'judged' end
  redis.call('HSET', key('public'), bar.symbol,
    string.format('%.0f %.0f %s %.0f %s', bar.day, now, actor, bar.volume, bar.json))
  log('PUBLIC', bar.symbol, bar.json)
  return 'laid'
end

local merge_one = authority == 'PUBLIC' and merge_public or merge_trusted
local verdicts, valid = {}, false
for at = FIRST, #ARGV, STRIDE do
  local verdict = merge_one({
    symbol = ARGV[at], day = tonumber(ARGV[at + 1]), volume = tonumber(ARGV[at + 2]),
    high = tonumber(ARGV[at + 3]), low = tonumber(ARGV[at + 4]), high_text = ARGV[at + 3],
    low_text = ARGV[at + 4], close_text = ARGV[at + 5], json = ARGV[at + 6], anchor = ARGV[at + 7],
  })
  if verdict ~= 'future' and verdict ~= 'full' then valid = true end
  verdicts[#verdicts + 1] = verdict
end
if valid and authority ~= 'PUBLIC' then trust(now - age, authority) end
trim(log_length)
return {epoch, revision or tonumber(redis.call('GET', key('revision')) or 0), verdicts}
