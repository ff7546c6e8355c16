-- Adds an index entry, and keeps the index at least until a time. ARGV: entry, version, that time; then 'again' to
-- renew an existing entry: it gets a higher version, which is no creation's.
-- Returns the number of entries, negative if the entry kept its version.
local left = redis.call('PTTL', KEYS[1])
if left >= 0 then
  -- TIME after PTTL: the end never seems earlier than it is. PEXPIREAT before ZADD: a full server then adds the entry.
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
