-- Ends what the named actors still have standing. ARGV: log length, then an actor each.
-- Returns how many overlays and held bars ended.

local banned = {}
for i = 2, #ARGV do banned[ARGV[i]] = true end
withdraw_where(function(overlay) return banned[overlay.actor] end)
local let_go = let_go_where(function(bar) return banned[bar.actor] end)
trim(tonumber(ARGV[1]))
return changes + let_go
