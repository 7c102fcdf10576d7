-- This script returns the store's state and what changed since a position. Every read of the market
-- needs it, so it must answer while the server is out of memory.
--
-- The header: new_epoch, trading_day, window (the trust window, ms), log_length; where the log is
--       asked for too, of_epoch and after: a position.
-- Returns epoch, revision, ms since the last trusted update (-1: never), the epoch that is ready, the
-- number of overlays, the number of symbols of which public bars are held, the days that the market has
-- shown to be trading days; then the log's entries after that position, or false when the log doesn't
-- reach back there or is of another life.

local epoch = live(header.new_epoch)
expire_public(header.trading_day, header.window)
expire_disputes()
if changes > 0 then write_revisions() end
trim(header.log_length)
local reached = revision or tonumber(redis.call('GET', key('revision')) or 0)

-- Every revision has entries and is logged whole, so a log that has the next revision's first entry has
-- all that follows.
local function entries_after(of_epoch, after)
  if of_epoch ~= epoch then return false end
  if after == reached then return {} end
  if after + 1 < tonumber(redis.call('GET', key('log_floor')) or 0) then return false end
  local first = string.format('%.0f-0', after + 1)
  local entries = redis.call('XRANGE', key('changes'), first, '+')
  return entries[1] ~= nil and entries[1][1] == first and entries
end

local trusted_at = redis.call('GET', key('trusted_at'))
return {
  epoch,
  reached,
  trusted_at and math.max(0, now - trusted_at) or -1,
  redis.call('GET', key('ready')) or '',
  redis.call('HLEN', key('public')),
  redis.call('HLEN', key('held')),
  redis.call('SMEMBERS', key('trading_days')),
  header.after and entries_after(header.of_epoch, header.after), -- not asked for: nothing
}
