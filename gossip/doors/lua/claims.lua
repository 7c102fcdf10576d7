-- This script opens claims of a public sender. It runs after tickers/store/lua/prelude.lua.
--
-- open_claims  "ACTOR SYMBOL" -> "made_at day close volume served anchor": what a sender said
-- open_claims_of  NETWORK -> how many of them its actors have
-- claims:ACTOR  how many the actor has made within an hour of its first
--
-- The header: most (open claims), most_of_network, most_an_hour (of an actor), network, actor.
-- Then a claim each: symbol, "day close volume served anchor".
-- Returns how many claims the actor has made within the hour.
-- A claim that is open isn't replaced, or a sender who repeats itself would never be judged.

local HOUR = 3600000
local network, actor = header.network, header.actor
local claims, networks, made_key = key('open_claims'), key('open_claims_of'), key('claims:' .. actor)
local made = tonumber(redis.call('GET', made_key) or 0)
local of_network = tonumber(redis.call('HGET', networks, network) or 0)
for at = 2, #ARGV, 2 do
  if made >= header.most_an_hour or of_network >= header.most_of_network then break end
  if redis.call('HLEN', claims) >= header.most then break end
  local text = string.format('%.0f ', now) .. ARGV[at + 1]
  if redis.call('HSETNX', claims, actor .. ' ' .. ARGV[at], text) == 1 then
    of_network = redis.call('HINCRBY', networks, network, 1)
    made = redis.call('INCR', made_key)
    if made == 1 then redis.call('PEXPIRE', made_key, HOUR) end
  end
end
return made
