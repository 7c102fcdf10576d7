-- This script removes a symbol from the market, with all that is known of it.
-- The header: fence (empty: no lease is needed), new_epoch, symbol, log_length.
-- Returns whether it was there, 1 or 0.

local symbol = header.symbol
if header.fence ~= '' and fenced(header.fence) then return FENCED end
if redis.call('HEXISTS', key('last'), symbol) == 0 then return 0 end
live(header.new_epoch)
remove(symbol)
redis.call('HDEL', key('disputed'), symbol)
trim(header.log_length)
return 1
