-- Claims of public senders; runs after tickers/lua/prelude.lua.
--
-- claims        "ACTOR SYMBOL" -> "made_at day close volume served": what a sender said of a symbol
-- claims:ACTOR  how many the actor has made within an hour of its first
--
-- ARGV: most claims, most of an actor an hour, actor, then a claim each: symbol,
--       "day close volume served"
-- One that is open stays: whoever sends again and again would never be judged otherwise.

local HOUR = 3600000
local most, most_an_hour, actor = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local claims, made_key = key('claims'), key('claims:' .. actor)
local made = tonumber(redis.call('GET', made_key) or 0)
for at = 4, #ARGV, 2 do
  if made >= most_an_hour or redis.call('HLEN', claims) >= most then break end
  local text = string.format('%.0f ', now) .. ARGV[at + 1]
  if redis.call('HSETNX', claims, actor .. ' ' .. ARGV[at], text) == 1 then
    made = redis.call('INCR', made_key)
    if made == 1 then redis.call('PEXPIRE', made_key, HOUR) end
  end
end
return made
