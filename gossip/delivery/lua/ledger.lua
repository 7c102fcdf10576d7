-- This script reads and writes a peer's ledger. It runs after tickers/store/lua/prelude.lua, and only
-- for the worker that leads.
--
-- ledger:PEER  SYMBOL -> "revision taken_at": the revision that the peer has taken, and when (ms)
-- older:PEER   the notes about an older node, each where it applies: 'older', 'frozen' (since, ms),
--              'looked' (at, ms), 'settled:SYMBOL' -> day
-- ledgers      the peers that have a ledger
--
-- The header: action, fence, new_epoch; peer for all but 'check' and 'keep'; of_epoch for 'take'.
--   'check'  returns {epoch, revision, now (ms)}
--   'open'   returns {epoch, now (ms), symbol, "revision taken_at", ...}
--   'take'   then symbol, revision each; writes nothing in another epoch
--   'notes'  returns {now (ms), field, text, ...} of ``older``
--   'note'   then field, text each; an empty text deletes the field
--   'keep'   then peers; deletes all other ledgers; returns how many

local action, peer = header.action, header.peer
if fenced(header.fence) then return FENCED end
local epoch = live(header.new_epoch)

if action == 'check' then
  return {epoch, tonumber(redis.call('GET', key('revision')) or 0), now}
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
  local taken_at, taken = string.format(' %.0f', now), {}
  for at = 2, #ARGV, 2 do
    taken[at - 1], taken[at] = ARGV[at], ARGV[at + 1] .. taken_at
  end
  write_all('HSET', key('ledger:' .. peer), taken)
  return true
end

if action == 'notes' then
  local answer = {now}
  for _, text in ipairs(redis.call('HGETALL', key('older:' .. peer))) do
    answer[#answer + 1] = text
  end
  return answer
end

if action == 'note' then
  redis.call('SADD', key('ledgers'), peer)
  for at = 2, #ARGV, 2 do
    if ARGV[at + 1] == '' then
      redis.call('HDEL', key('older:' .. peer), ARGV[at])
    else
      redis.call('HSET', key('older:' .. peer), ARGV[at], ARGV[at + 1])
    end
  end
  return true
end

local kept, deleted = {}, 0
for at = 2, #ARGV do kept[ARGV[at]] = true end
for _, peer in ipairs(redis.call('SMEMBERS', key('ledgers'))) do
  if not kept[peer] then
    redis.call('DEL', key('ledger:' .. peer), key('older:' .. peer))
    redis.call('SREM', key('ledgers'), peer)
    deleted = deleted + 1
  end
end
return deleted
