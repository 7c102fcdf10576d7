-- This script reads symbols' trusted bars in one step, as the newest may move to the history between two
-- reads. It writes nothing.
--
-- The header: last (how many of the last bars of each; 0: all). Then the symbols.
-- Returns for each ``last`` and ``revisions`` (false: none), then its earlier bars.

local found, first = {}, header.last > 0 and -header.last or 0
for at = 2, #ARGV do
  local symbol = ARGV[at]
  found[#found + 1] = {
    redis.call('HGET', key('last'), symbol),
    redis.call('HGET', key('revisions'), symbol),
    redis.call('LRANGE', key('bars:' .. symbol), first, -1),
  }
end
return found
