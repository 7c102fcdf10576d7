-- The merge table's row for a bar of the newest day stored, shared by bars and whole series.

local function read_last(text)
  if not text then return nil end
  local day, authority, volume, high, low, close, stored_at, json =
    string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.+)$')
  return {day = tonumber(day), authority = authority, volume = tonumber(volume),
    high = tonumber(high), low = tonumber(low), close_text = close,
    stored_at = tonumber(stored_at), json = json}
end

local function write_last(bar)
  return string.format('%.0f %s %.0f %s %s %s %.0f %s', bar.day, bar.authority, bar.volume,
    bar.high_text, bar.low_text, bar.close_text, bar.stored_at, bar.json)
end

-- Our own fetch may be the older one: an internal peer's larger volume stands for this long.
local INTERNAL_STANDS = 60000

-- Late and repeated messages never outgrow what they were late for, in any order.
local function outgrows(bar, stored)
  return bar.volume > stored.volume or
    (bar.volume == stored.volume and bar.high - bar.low > stored.high - stored.low)
end

local function newest_verdict(bar, stored, authority)
  if bar.json == stored.json then
    return authority == 'CORE' and stored.authority ~= 'CORE' and 'confirmed' or 'unchanged'
  end
  if authority ~= 'CORE' then return outgrows(bar, stored) and 'replaced' or 'kept' end
  local may_be_late = stored.authority == 'INTERNAL' and stored.volume > bar.volume
  if may_be_late and now - stored.stored_at <= INTERNAL_STANDS then return 'kept' end
  return 'replaced'
end
