-- The merge table's row for a bar of the newest day stored, shared by bars and whole series.
-- A bar's figures are one text, as it was sent and is stored, "volume high low close": most bars are
-- decided without most of them.

local function read_last(text)
  if not text then return nil end
  local day, authority, figures, stored_at, json_at =
    string.match(text, '^(%S+) (%S+) (%S+ %S+ %S+ %S+) (%S+) %S+ ()')
  return {day = tonumber(day), authority = authority, figures = figures,
    stored_at = stored_at, json = string.sub(text, json_at)}
end

local now_text = string.format('%.0f', now)

-- ``last`` of a bar that this call stores, and has logged.
local function write_last(bar, authority)
  return bar.day_text .. ' ' .. authority .. ' ' .. bar.figures .. ' ' .. now_text .. ' ' ..
    revision_text .. ' ' .. bar.json
end

local function volume_of(bar) return tonumber(string.match(bar.figures, '^%d+')) end

local function span_of(bar)
  local high, low = string.match(bar.figures, '^%S+ (%S+) (%S+)')
  return tonumber(high) - tonumber(low)
end

local function close_of(bar) return string.match(bar.figures, '^%S+ %S+ %S+ (%S+)') end

local BEFORE_SYMBOL, BEFORE_DATE = #'{"symbol":"', #'","time":"'

-- The day of an encoded bar as YYYY-MM-DD, which sorts as text.
local function date_of(json, symbol)
  local at = BEFORE_SYMBOL + #symbol + BEFORE_DATE
  return string.sub(json, at + 1, at + 10)
end

-- Our own fetch may be the older one: an internal peer's larger volume stands for this long.
local INTERNAL_STANDS = 60000

-- Late and repeated messages never outgrow what they were late for, in any order.
local function outgrows(bar, stored)
  local volume, stored_volume = volume_of(bar), volume_of(stored)
  return volume > stored_volume or (volume == stored_volume and span_of(bar) > span_of(stored))
end

local function newest_verdict(bar, stored, authority)
  if bar.json == stored.json then
    return authority == 'CORE' and stored.authority ~= 'CORE' and 'confirmed' or 'unchanged'
  end
  if authority ~= 'CORE' then return outgrows(bar, stored) and 'replaced' or 'kept' end
  local may_be_late = stored.authority == 'INTERNAL' and volume_of(stored) > volume_of(bar)
  if may_be_late and now - tonumber(stored.stored_at) <= INTERNAL_STANDS then return 'kept' end
  return 'replaced'
end
