-- A peer's ledger; runs after tickers/store/lua/prelude.lua, and only for the worker that leads.
--
-- ledger:PEER  SYMBOL -> "revision taken_at": the revision that the peer has taken, and when (ms)
-- ledgers      the peers that have a ledger
--
-- ARGV: action, fence, new epoch, then
--   'check'                               returns {epoch, revision}
--   'open', PEER                          returns {epoch, now (ms), symbol, "revision taken_at", ...}
--   'take', PEER, epoch, then symbol, revision each
--                                         writes nothing in another epoch
--   'keep', PEER ...                      deletes all other ledgers; returns how many

local action, fence = ARGV[1], ARGV[2]
if fenced(fence) then return FENCED end
local epoch = live(ARGV[3])

if action == 'check' then
  return {epoch, tonumber(redis.call('GET', key('revision')) or 0)}
end

if action == 'open' then
  redis.call('SADD', key('ledgers'), ARGV[4])
  local answer = {epoch, now}
  for _, text in ipairs(redis.call('HGETALL', key('ledger:' .. ARGV[4]))) do
    answer[#answer + 1] = text
  end
  return answer
end

if action == 'take' then
  -- Revisions of another life of the store name other bars.
  if ARGV[5] ~= epoch then return false end
  for at = 6, #ARGV, 2 do
    redis.call('HSET', key('ledger:' .. ARGV[4]), ARGV[at],
      string.format('%s %.0f', ARGV[at + 1], now))
  end
  return true
end

local kept, deleted = {}, 0
for at = 4, #ARGV do kept[ARGV[at]] = true end
for _, peer in ipairs(redis.call('SMEMBERS', key('ledgers'))) do
  if not kept[peer] then
    redis.call('DEL', key('ledger:' .. peer))
    redis.call('SREM', key('ledgers'), peer)
    deleted = deleted + 1
  end
end
return deleted
