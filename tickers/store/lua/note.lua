-- What the leader leaves beside the market for the next cycle, the next leader and /health.
-- ARGV: fence, the key's name, text.

if fenced(ARGV[1]) then return FENCED end
redis.call('SET', key(ARGV[2]), ARGV[3])
return 1
