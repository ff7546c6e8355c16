-- Adds an entry to an index, or gives it a version that it never had before: a higher one. Arguments: the entry, the least
-- version. The version.
local version = tonumber(ARGV[2])
local held = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
if held and held >= version then version = held + 1 end
redis.call('ZADD', KEYS[1], string.format('%.0f', version), ARGV[1])
return version
