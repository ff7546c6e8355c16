-- Creates a session unless a live one is stored, and its entry in the index of its user where that is on the same server.
-- Keys: the session; then the index. Arguments: now, the value, when the server ends it, the creation of the session if it
-- may be stored already, or ''; then the entry, its version, until when the index has to be kept at least, and 'count' if
-- its entries are to be counted; then what `room.lua` takes, which goes before. How many entries the index has, or 1; the
-- live session's value; `-1`: it is no session; `-2`: the user has no room for it.
local call, key, index = redis.call, KEYS[1], KEYS[2]
local head = call('GETRANGE', key, 0, 55)
local is_own = false
if head ~= '' then
  local expires = tonumber(string.sub(head, 12, 29))
  if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
  if expires > tonumber(ARGV[1]) then
    is_own = string.sub(head, 41, 56) == ARGV[4]
    if not is_own then return call('GET', key) end
  end
end
if ARGV[9] and not is_own and is_full(index, ARGV[5], tonumber(ARGV[1]), ARGV, 9) then return -2 end
if index then
  local left = call('PTTL', index)
  -- An entry that is there gets a version that it never had.
  call('ZADD', index, ARGV[6], ARGV[5])
  if left == -2 then
    call('PEXPIREAT', index, ARGV[7])
  elseif left >= 0 then
    local time = call('TIME')
    if tonumber(ARGV[7]) > time[1] * 1000 + time[2] / 1000 + left then call('PEXPIREAT', index, ARGV[7]) end
  end
end
if head == '' then
  if not call('SET', key, ARGV[2], 'NX', 'PXAT', ARGV[3]) then return -1 end
elseif not is_own then
  call('SET', key, ARGV[2], 'PXAT', ARGV[3])
end
if ARGV[8] then return call('ZCARD', index) end
return 1
