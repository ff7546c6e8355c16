-- Moves the expiry of a live session. Arguments: now, the expiry as it stands in a record, when the server ends it, the
-- time from which on an expiry is left as it is, or ''; then, each of them or '', how long after its creation a session may
-- live, and what the record says from the creation to the user, if that user's index is kept long enough. `0`: there is
-- none. `1`. `2`: the index has to be kept longer first.
local head = redis.call('GETRANGE', KEYS[1], 0, 67)
local expires, moved, enough = tonumber(string.sub(head, 12, 29)), tonumber(ARGV[2]), tonumber(ARGV[4])
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return 0 end
if expires <= tonumber(ARGV[1]) then return 0 end
local created = math.floor((tonumber(string.sub(head, 41, 56)) or 0) / 1000)
local field, ends, lifetime = ARGV[2], ARGV[3], tonumber(ARGV[5] or '')
if lifetime then
  local last = created + lifetime
  if last <= tonumber(ARGV[1]) then return 0 end
  if enough and enough > last then enough = last end
  if moved > last then
    if tonumber(ends) == moved then ends = string.format('%.0f', last) end
    field, moved = string.format(' %-17.0f', last), last
  end
end
if enough and expires >= enough then return 1 end
if moved > expires then
  -- The last end of an index before the new expiry: every hour, from 37 minutes after the creation on.
  local last = moved - (moved - created - 2220000) % 3600000
  if last > expires and string.sub(head, 65, 68) ~= 'null'
    and not ((ARGV[6] or '') ~= '' and redis.call('GETRANGE', KEYS[1], 40, 39 + #ARGV[6]) == ARGV[6])
  then
    return 2
  end
end
-- A full server takes the new text, as a command has gone before it that changes something.
redis.call('PEXPIREAT', KEYS[1], ends)
if redis.call('SETRANGE', KEYS[1], 11, field) < 64 then
  -- The time was past: the server had ended it.
  redis.call('DEL', KEYS[1])
end
return 1
