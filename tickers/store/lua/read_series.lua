-- Symbols' trusted bars at one moment, as the newest may move to the history between two reads. Writes
-- nothing.
--
-- The header: last (so many bars of each; 0: all). Then the symbols.
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
