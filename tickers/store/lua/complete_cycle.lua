-- This script notes that a cycle has spoken of every symbol: the market of this epoch is complete.
-- The header: fence, new_epoch, age (of the data, ms; none: no trusted update), ends_public (whether all
--       public bars end), log_length, silent_after (ms without another cycle).

if fenced(header.fence) then return FENCED end
refuse_without_memory()
local epoch = live(header.new_epoch)
if header.age then trust(now - header.age) end
if header.ends_public then
  withdraw_where(function() return true end)
  redis.call('DEL', key('held'), key('oldest_public'))
end
redis.call('SET', key('cycle_at'), string.format('%.0f', now))
redis.call('SET', key('silent_at'), string.format('%.0f', now + header.silent_after))
redis.call('SET', key('ready'), epoch)
trim(header.log_length)
return epoch
