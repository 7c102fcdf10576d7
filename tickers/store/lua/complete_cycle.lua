-- A cycle has spoken of every symbol: the market of this epoch is complete.
-- ARGV: fence, new epoch, age of the data (ms; -1: no trusted update), '1' to end all public bars,
--       log length.

if fenced(ARGV[1]) then return FENCED end
local epoch, age = live(ARGV[2]), tonumber(ARGV[3])
if age >= 0 then trust(now - age) end
if ARGV[4] == '1' then
  withdraw_where(function() return true end)
  redis.call('DEL', key('held'), key('oldest_public'))
end
redis.call('SET', key('cycle_at'), string.format('%.0f', now))
redis.call('SET', key('ready'), epoch)
trim(tonumber(ARGV[5]))
return epoch
