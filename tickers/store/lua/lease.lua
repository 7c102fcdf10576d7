-- This script acquires, renews and releases the lease: the leader's right to fetch and deliver.
-- The header: action ('acquire', 'renew', 'release'), mine (a nonce to acquire it with, else the
--       fence), and of the first two lifetime (ms).
-- Returns the fence, or false when another holds the lease.

-- ``led`` outlives the lease by GRACE: it is there while a worker leads or has led a moment ago. A renewal
-- only moves the keys' ends, which a server without memory doesn't refuse.
local GRACE = 25000 -- ms: another worker takes over, or this one starts again, within

local action, mine, lifetime = header.action, header.mine, header.lifetime
local holder = redis.call('GET', key('lease'))
if action == 'acquire' then
  if holder and (life_of(holder) or run_id) == run_id then return false end
  -- The nonce tells apart equal numbers given out by two lives of the store.
  local fence = redis.call('INCR', key('fencing')) .. ':' .. mine .. ':' .. run_id
  redis.call('SET', key('lease'), fence, 'PX', lifetime)
  redis.call('SET', key('led'), 1, 'PX', lifetime + GRACE)
  return fence
end
if holder ~= mine or life_of(mine) ~= run_id then return false end
if action == 'renew' then
  redis.call('PEXPIRE', key('lease'), lifetime)
  redis.call('PEXPIRE', key('led'), lifetime + GRACE)
else
  redis.call('DEL', key('lease'))
  redis.call('PEXPIRE', key('led'), GRACE)
end
return mine
