-- This script disputes the INTERNAL bars of today of symbols for which a whole answer has none.
-- The header: fence, trading_day. Then the symbols.
-- Returns how many disputes that opens.

if fenced(header.fence) then return FENCED end
refuse_without_memory()

local opened = 0
for at = 2, #ARGV do
  local symbol = ARGV[at]
  local stored = read_last(redis.call('HGET', key('last'), symbol))
  if stored and stored.authority == 'INTERNAL' and stored.day == header.trading_day
      and not dispute_of(symbol, stored.day) then
    open_dispute(symbol, stored.day, tonumber(stored.stored_at), nil)
    opened = opened + 1
  end
end
return opened
