-- Adds an entry to an index, and has the server keep the index until a time at least. Arguments: the entry, its version,
-- that time; then 'again', if an entry that is there is to get a version that it never had before: a higher one, which is
-- no creation's either. How many entries the index has: negative, if the entry was there and kept its version.
local left = redis.call('PTTL', KEYS[1])
if left >= 0 then
  -- In this order the end is never taken for earlier than it is. A prolongation goes first: then a full server adds the
  -- entry too.
  local time = redis.call('TIME')
  if tonumber(ARGV[3]) > time[1] * 1000 + time[2] / 1000 + left then redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
end
local added = redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
if added == 0 and ARGV[4] then
  local version = math.max(tonumber(ARGV[2]), tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))) + 1
  redis.call('ZADD', KEYS[1], string.format('%.0f', version), ARGV[1])
  added = 1
end
if left == -2 then redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
local entries = redis.call('ZCARD', KEYS[1])
if added == 0 then return -entries end
return entries
