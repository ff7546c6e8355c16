-- Creates a session where the server holds one. Arguments: now, the value, when the server ends it; then the creation of
-- the session, if it may be stored already. `1`, or the live session's value.
local head = redis.call('GETRANGE', KEYS[1], 0, 55)
if head == '' and redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
if head ~= '' then
  local expires = tonumber(string.sub(head, 12, 29))
  if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
  if expires > tonumber(ARGV[1]) then
    if ARGV[4] and string.sub(head, 41, 56) == ARGV[4] then return 1 end
    return redis.call('GET', KEYS[1])
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
