-- Creates a session, and its entry in the index of its user. Keys: the session, the index. Arguments: the value, when the
-- server ends it, the entry, its version, until when the index has to be kept at least; then 'count', if its entries are to
-- be counted. `0`: there is a value already, and nothing has changed. Else how many entries the index has, or 1.
local call, index = redis.call, KEYS[2]
local left = call('PTTL', index)
local added = call('ZADD', index, 'NX', ARGV[4], ARGV[3])
if not call('SET', KEYS[1], ARGV[1], 'NX', 'PXAT', ARGV[2]) then
  if added == 1 then call('ZREM', index, ARGV[3]) end
  return 0
end
if added == 0 then
  -- Another creation may need the entry. With a new version, no process removes it that has read the old one, or that
  -- ends this session.
  local version = math.max(tonumber(ARGV[4]), tonumber(call('ZSCORE', index, ARGV[3]))) + 1
  call('ZADD', index, string.format('%.0f', version), ARGV[3])
end
if left == -2 then
  call('PEXPIREAT', index, ARGV[5])
elseif left >= 0 then
  local time = call('TIME')
  if tonumber(ARGV[5]) > time[1] * 1000 + time[2] / 1000 + left then call('PEXPIREAT', index, ARGV[5]) end
end
if ARGV[6] then return call('ZCARD', index) end
return 1
