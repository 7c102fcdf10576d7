-- This script ends the overlays that the named actors sent or confirmed, and their held bars.
-- The header: log_length. Then an actor each.
-- Returns how many overlays and held bars ended.

local banned = {}
for i = 2, #ARGV do banned[ARGV[i]] = true end
withdraw_where(function(overlay)
  for actor in string.gmatch(overlay.actors, '[^,]+') do
    if banned[actor] then return true end
  end
  return false
end)
local let_go = let_go_where(function(bar) return banned[bar.actor] end)
trim(header.log_length)
return changes + let_go
