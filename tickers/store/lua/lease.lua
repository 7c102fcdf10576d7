-- This script acquires, renews and releases the lease: the leader's right to fetch and deliver.
-- The header: action ('acquire', 'renew', 'release'), mine (a nonce to acquire it with, else the
--       fence), and of the first two lifetime (ms).
-- Returns the fence, or false when another holds the lease.

local action, mine, lifetime = header.action, header.mine, header.lifetime
local holder = redis.call('GET', key('lease'))
if action == 'acquire' then
  if holder and (life_of(holder) or run_id) == run_id then return false end
  -- The nonce tells apart equal numbers given out by two lives of the store.
  local fence = redis.call('INCR', key('fencing')) .. ':' .. mine .. ':' .. run_id
  redis.call('SET', key('lease'), fence, 'PX', lifetime)
  return fence
end
if holder ~= mine or life_of(mine) ~= run_id then return false end
if action == 'renew' then
  redis.call('PEXPIRE', key('lease'), lifetime)
else
  redis.call('DEL', key('lease'))
end
return mine
