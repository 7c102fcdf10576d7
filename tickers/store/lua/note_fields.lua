-- This script keeps texts of the leader about single symbols beside the market.
-- The header: fence, name (the hash's). Then symbol and text by turns; an empty text deletes it.

if fenced(header.fence) then return FENCED end
for at = 2, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', key(header.name), ARGV[at])
  else
    redis.call('HSET', key(header.name), ARGV[at], ARGV[at + 1])
  end
end
return 1
