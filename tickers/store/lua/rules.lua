-- These rules are the merge table's row for a bar of the newest stored day, shared by bars and whole
-- series. A bar's figures stay one text, "volume high low close", as most bars are decided without
-- parsing most of them.

local function read_last(text)
  if not text then return nil end
  local day, authority, figures, stored_at, json_at =
    string.match(text, '^(%S+) (%S+) (%S+ %S+ %S+ %S+) (%S+) %S+ ()')
  return {day = tonumber(day), authority = authority, figures = figures,
    stored_at = stored_at, json = string.sub(text, json_at)}
end

local now_text = string.format('%.0f', now)

-- Returns the text in ``last`` of a bar that this call has logged; ``stored_at`` is now unless given.
local function write_last(bar, authority, stored_at)
  return bar.day_text .. ' ' .. authority .. ' ' .. bar.figures .. ' ' .. (stored_at or now_text) ..
    ' ' .. revision_text .. ' ' .. bar.json
end

local function volume_of(bar) return tonumber(string.match(bar.figures, '^%d+')) end

local function span_of(bar)
  local high, low = string.match(bar.figures, '^%S+ (%S+) (%S+)')
  return tonumber(high) - tonumber(low)
end

local function close_of(bar) return string.match(bar.figures, '^%S+ %S+ %S+ (%S+)') end

local BEFORE_SYMBOL, BEFORE_DATE = #'{"symbol":"', #'","time":"'

-- Returns the day of an encoded bar as YYYY-MM-DD, which sorts as text.
local function date_of(json, symbol)
  local at = BEFORE_SYMBOL + #symbol + BEFORE_DATE
  return string.sub(json, at + 1, at + 10)
end

-- Returns that date in epoch seconds.
local function day_of(date)
  local year, month, day = string.match(date, '^(%d+)-(%d+)-(%d+)$')
  -- Years begin in March here, so that a leap day is the last one. Days since 1 March of the year 0.
  year, month = tonumber(year), tonumber(month)
  if month < 3 then year, month = year - 1, month + 12 end
  local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400) +
    math.floor((153 * (month - 3) + 2) / 5) + tonumber(day) - 1
  return (days - 719468) * 86400
end

-- Returns the figures of an encoded bar.
local function figures_in(json)
  local high, low, close, volume =
    string.match(json, '"high":([^,]+),"low":([^,]+),"close":([^,]+),"volume":(%d+)}$')
  return volume .. ' ' .. high .. ' ' .. low .. ' ' .. close
end

-- An internal peer's larger volume stays this long (ms), as our own fetch may be the older one.
local INTERNAL_STANDS = 60000

-- Returns whether a bar is the later one. Late and repeated messages never are, in any order.
local function outgrows(bar, stored)
  local volume, stored_volume = volume_of(bar), volume_of(stored)
  return volume > stored_volume or (volume == stored_volume and span_of(bar) > span_of(stored))
end

-- Returns the verdict on a bar of the newest stored day; ``since`` is when the dispute about the stored
-- bar began (nil: there is none).
local function newest_verdict(bar, stored, authority, since)
  local is_internal = stored.authority == 'INTERNAL'
  if bar.json == stored.json then
    local confirms = authority == 'CORE' and stored.authority ~= 'CORE'
      or authority == 'FOLLOWED' and is_internal
    return confirms and 'confirmed' or 'unchanged'
  end
  if authority ~= 'CORE' and outgrows(bar, stored) then return 'replaced' end
  if authority == 'INTERNAL' or not is_internal then
    return authority == 'CORE' and 'replaced' or 'kept'
  end
  if authority == 'CORE' and volume_of(stored) <= volume_of(bar) then return 'replaced' end
  local stands = now - (since or tonumber(stored.stored_at)) < INTERNAL_STANDS
  return stands and 'kept' or 'replaced'
end
