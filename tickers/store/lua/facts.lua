-- This script reads the facts by which public bars of some symbols are judged. It writes nothing.
--
-- The header is empty. Then the symbols.
-- Returns for each ``last``, ``public``, the bar before the newest, ``loaded`` (false: none), whether
-- it is a suspect (1 or 0), and ``listed`` (false: none).

local found = {}
for at = 2, #ARGV do
  local symbol = ARGV[at]
  found[#found + 1] = {
    redis.call('HGET', key('last'), symbol),
    redis.call('HGET', key('public'), symbol),
    redis.call('LINDEX', key('bars:' .. symbol), -1),
    redis.call('HGET', key('loaded'), symbol),
    redis.call('HEXISTS', key('suspects'), symbol),
    redis.call('HGET', key('listed'), symbol),
  }
end
return found
