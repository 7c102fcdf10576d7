-- Ends claims of one symbol that were judged together: all of them, or none where one isn't open any
-- more as it was read. Runs after tickers/store/lua/prelude.lua; lua/claims.lua describes the keys.
--
-- The header: nothing. Then a claim each: network, field, text. Returns whether they were ended, 1 or 0.

local claims, networks = key('open_claims'), key('open_claims_of')
for at = 2, #ARGV, 3 do
  if redis.call('HGET', claims, ARGV[at + 1]) ~= ARGV[at + 2] then return 0 end
end
for at = 2, #ARGV, 3 do
  redis.call('HDEL', claims, ARGV[at + 1])
  if redis.call('HINCRBY', networks, ARGV[at], -1) <= 0 then redis.call('HDEL', networks, ARGV[at]) end
end
-- Nothing is open: whatever miscounted (two versions that know other networks, say) ends here.
if redis.call('EXISTS', claims) == 0 then redis.call('DEL', networks) end
return 1
