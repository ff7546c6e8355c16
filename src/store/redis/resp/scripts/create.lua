-- Creates a session unless a live one has its id. With KEYS[2], also adds its entry to the user's index. ARGV: now,
-- record, expiry, creation if it may be stored already, or ''; entry, its version, least end of the index, 'count' to
-- count entries; then what room.lua takes, which goes before.
-- Returns the number of entries, or 1; the live session's value; -1: not a session; -2: the user is full.
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
  -- An existing entry gets the new version too.
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
