-- Moves the expiry of a live session. ARGV: now, expiry field, expiry, an expiry that is late enough or ''; then, each
-- optional or '', the maximum lifetime after the creation, and the creation and user for which the index was prolonged.
-- Returns 0: no session; 1: done; 2: prolong the index first.
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
  -- The last full hour before the new expiry, counted from 37 minutes after the creation: see `index_end`.
  local last = moved - (moved - created - 2220000) % 3600000
  if last > expires and string.sub(head, 65, 68) ~= 'null'
    and not ((ARGV[6] or '') ~= '' and redis.call('GETRANGE', KEYS[1], 40, 39 + #ARGV[6]) == ARGV[6])
  then
    return 2
  end
end
-- A full server accepts SETRANGE, because another write precedes it.
redis.call('PEXPIREAT', KEYS[1], ends)
if redis.call('SETRANGE', KEYS[1], 11, field) < 64 then
  -- The expiry was in the past, so the server had removed the session.
  redis.call('DEL', KEYS[1])
end
return 1
