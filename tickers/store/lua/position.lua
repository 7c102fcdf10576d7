-- Where the store stands. ARGV: new epoch, trading day, trust window (ms), log length.
-- Returns epoch, revision, ms since the last trusted update (-1: never), the epoch that is ready,
-- overlays standing, symbols of which public bars are held.

local epoch = live(ARGV[1])
expire_public(tonumber(ARGV[2]), tonumber(ARGV[3]))
trim(tonumber(ARGV[4]))
local trusted_at = redis.call('GET', key('trusted_at'))
return {
  epoch,
  revision or tonumber(redis.call('GET', key('revision')) or 0),
  trusted_at and math.max(0, now - trusted_at) or -1,
  redis.call('GET', key('ready')) or '',
  redis.call('HLEN', key('public')),
  redis.call('HLEN', key('held')),
}
