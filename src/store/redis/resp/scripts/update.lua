-- Replaces a live session, and keeps its creation. ARGV: now, record before the creation, record after it, the user
-- that it must have and the text after it, expiry; then, each optional or '', the creation that it must have, if the
-- index was prolonged, and the maximum lifetime. With a limit, also KEYS[2] and from ARGV[8] on: the new user's index,
-- the entry there, a new version, and what room.lua takes, which goes before.
-- Returns 0: no session; 1: done; 2: other user or creation, or no entry; 3: prolong the index first; 4: the user is
-- full.
local head = redis.call('GETRANGE', KEYS[1], 0, 63 + #ARGV[4])
local expires = tonumber(string.sub(head, 12, 29))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return 0 end
if expires <= tonumber(ARGV[1]) then return 0 end
local created = string.sub(head, 41, 56)
local start, ends, lifetime = ARGV[2], ARGV[5], tonumber(ARGV[7] or '')
local moved, created_at = tonumber(string.sub(start, 12, 29)), math.floor((tonumber(created) or 0) / 1000)
if lifetime then
  local last = created_at + lifetime
  if last <= tonumber(ARGV[1]) then return 0 end
  if moved > last then
    if tonumber(ends) == moved then ends = string.format('%.0f', last) end
    start = string.sub(start, 1, 11) .. string.format(' %-17.0f', last) .. string.sub(start, 30)
    moved = last
  end
end
if string.sub(head, 65) ~= ARGV[4] then return 2 end
if (ARGV[6] or '') ~= '' then
  if created ~= ARGV[6] then return 2 end
elseif moved > expires then
  -- The last full hour before the new expiry, counted from 37 minutes after the creation: see `index_end`.
  local last = moved - (moved - created_at - 2220000) % 3600000
  if last > expires and string.sub(ARGV[4], 1, 4) ~= 'null' then return 3 end
end
if ARGV[8] then
  local score = redis.call('ZSCORE', KEYS[2], ARGV[8])
  if not score then return 2 end
  if is_full(KEYS[2], ARGV[8], tonumber(ARGV[1]), ARGV, 10) then return 4 end
  -- A process that saw the entry before must not remove it any more.
  redis.call('ZADD', KEYS[2], string.format('%.0f', math.max(tonumber(ARGV[9]), tonumber(score)) + 1), ARGV[8])
end
redis.call('SET', KEYS[1], start .. created .. ARGV[3], 'PXAT', ends)
return 1
