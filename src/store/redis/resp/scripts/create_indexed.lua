-- Creates a session, and its entry in the index of its user. Keys: the session, the index. Arguments: the value, when the
-- server ends it, the entry, its version, until when the index has to be kept at least; then 'count', if its entries are to
-- be counted. `0`: there is a value already, and nothing has changed. Else how many entries the index has, or 1.
local left = redis.call('PTTL', KEYS[2])
local added = redis.call('ZADD', KEYS[2], 'NX', ARGV[4], ARGV[3])
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PXAT', ARGV[2]) then
  if added == 1 then redis.call('ZREM', KEYS[2], ARGV[3]) end
  return 0
end
if added == 0 then
  -- Whoever has seen the entry before must not remove it now.
  local version = math.max(tonumber(ARGV[4]), tonumber(redis.call('ZSCORE', KEYS[2], ARGV[3])) + 1)
  redis.call('ZADD', KEYS[2], string.format('%.0f', version), ARGV[3])
end
if left == -2 then
  redis.call('PEXPIREAT', KEYS[2], ARGV[5])
elseif left >= 0 then
  local time = redis.call('TIME')
  if tonumber(ARGV[5]) > time[1] * 1000 + time[2] / 1000 + left then redis.call('PEXPIREAT', KEYS[2], ARGV[5]) end
end
if ARGV[6] then return redis.call('ZCARD', KEYS[2]) end
return 1
