-- Claims of public senders; runs after tickers/lua/prelude.lua.
--
-- claims  "ACTOR SYMBOL" -> "made_at day close volume served": what a sender said of a symbol
--
-- ARGV: most claims, then a claim each: its field, "day close volume served"
-- One that is open stays: whoever sends again and again would never be judged otherwise.

local most = tonumber(ARGV[1])
for at = 2, #ARGV, 2 do
  if redis.call('HLEN', key('claims')) >= most then break end
  redis.call('HSETNX', key('claims'), ARGV[at], string.format('%.0f ', now) .. ARGV[at + 1])
end
return redis.call('HLEN', key('claims'))
