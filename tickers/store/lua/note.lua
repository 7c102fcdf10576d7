-- This script keeps a text of the leader beside the market, for the next cycle or leader and /health.
-- The header: fence, name (the key's). Then the text.

if fenced(header.fence) then return FENCED end
redis.call('SET', key(header.name), ARGV[2])
return 1
