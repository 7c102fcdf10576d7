-- This script ends claims of one symbol that were judged together: all of them, or none if one of them
-- has changed since it was read. It runs after tickers/store/lua/prelude.lua; lua/claims.lua describes
-- the keys.
--
-- The header is empty. Then a claim each: network, field, text. Returns 1 if they were ended, else 0.

local claims, networks = key('open_claims'), key('open_claims_of')
for at = 2, #ARGV, 3 do
  if redis.call('HGET', claims, ARGV[at + 1]) ~= ARGV[at + 2] then return 0 end
end
for at = 2, #ARGV, 3 do
  redis.call('HDEL', claims, ARGV[at + 1])
  if redis.call('HINCRBY', networks, ARGV[at], -1) <= 0 then redis.call('HDEL', networks, ARGV[at]) end
end
-- While no claim is open the counts must be 0. Deleting them ends a miscount, such as that of two
-- versions that group networks differently.
if redis.call('EXISTS', claims) == 0 then redis.call('DEL', networks) end
return 1
