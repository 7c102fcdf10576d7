-- This script keeps the days that the market has shown to be trading days.
-- The header: fence. Then the days, YYYY-MM-DD.

if fenced(header.fence) then return FENCED end
redis.call('SADD', key('trading_days'), unpack(ARGV, 2))
return 1
