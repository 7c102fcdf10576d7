-- Grants an upstream request, or says how long to wait; all times in microseconds.
-- KEYS[1] is a list of the instants of the grants, oldest first. The header: limit, window, pace.
-- Returns 0 for a grant, else the wait.

local header = cjson.decode(ARGV[1])
local limit, window, pace = header.limit, header.window, header.pace
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local instant = string.format('%.0f', now)

-- The server's clock was set back: what was granted counts as granted now.
local last = tonumber(redis.call('LINDEX', KEYS[1], -1) or 0)
if last > now then
  local granted = redis.call('LLEN', KEYS[1])
  redis.call('DEL', KEYS[1])
  for _ = 1, granted do redis.call('RPUSH', KEYS[1], instant) end
  last = now
end

local oldest = redis.call('LINDEX', KEYS[1], 0)
while oldest and now - oldest >= window do
  redis.call('LPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], 0)
end

local wait = last + pace - now
local excess = redis.call('LLEN', KEYS[1]) - limit
if excess >= 0 then
  wait = math.max(wait, redis.call('LINDEX', KEYS[1], excess) + window - now)
end
if wait > 0 then return wait end
redis.call('RPUSH', KEYS[1], instant)
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
return 0
