-- A peer's ledger; runs after tickers/store/lua/prelude.lua, and only for the worker that leads.
--
-- ledger:PEER  SYMBOL -> "revision taken_at": the revision that the peer has taken, and when (ms)
-- ledgers      the peers that have a ledger
--
-- The header: action, fence, new_epoch; peer for 'open' and 'take'; of_epoch for 'take'.
--   'check'  returns {epoch, revision}
--   'open'   returns {epoch, now (ms), symbol, "revision taken_at", ...}
--   'take'   then symbol, revision each; writes nothing in another epoch
--   'keep'   then peers; deletes all other ledgers; returns how many

local action, peer = header.action, header.peer
if fenced(header.fence) then return FENCED end
local epoch = live(header.new_epoch)

if action == 'check' then
  return {epoch, tonumber(redis.call('GET', key('revision')) or 0)}
end

if action == 'open' then
  redis.call('SADD', key('ledgers'), peer)
  local answer = {epoch, now}
  for _, text in ipairs(redis.call('HGETALL', key('ledger:' .. peer))) do
    answer[#answer + 1] = text
  end
  return answer
end

if action == 'take' then
  -- Revisions of another life of the store name other bars.
  if header.of_epoch ~= epoch then return false end
  for at = 2, #ARGV, 2 do
    redis.call('HSET', key('ledger:' .. peer), ARGV[at],
      string.format('%s %.0f', ARGV[at + 1], now))
  end
  return true
end

local kept, deleted = {}, 0
for at = 2, #ARGV do kept[ARGV[at]] = true end
for _, peer in ipairs(redis.call('SMEMBERS', key('ledgers'))) do
  if not kept[peer] then
    redis.call('DEL', key('ledger:' .. peer))
    redis.call('SREM', key('ledgers'), peer)
    deleted = deleted + 1
  end
end
return deleted
