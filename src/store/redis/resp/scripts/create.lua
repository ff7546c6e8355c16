-- Creates a session where the server holds one. Arguments: now, the value, when the server ends it. `1`, or the live
-- session's value.
local head = redis.call('GETRANGE', KEYS[1], 0, 28)
if head ~= '' then
  local expires = tonumber(string.sub(head, 12))
  if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
  if expires > tonumber(ARGV[1]) then return redis.call('GET', KEYS[1]) end
end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
