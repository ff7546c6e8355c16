-- Goes before a script that gives a user one more session. Whether the user's other live sessions leave no room for it.
-- The index names all of them, and may name others. `rule` has, from `at` on: the limit, the start of session keys, the
-- user and the text after it, and the maximum lifetime after the creation, or ''.
local function is_full(index, member, now, rule, at)
  local max = tonumber(rule[at])
  if redis.call('ZCARD', index) < max then return false end
  local entries, user, lifetime, live = redis.call('ZRANGE', index, 0, -1), rule[at + 2], tonumber(rule[at + 3]), 0
  -- The newest are most likely live.
  for place = #entries, 1, -1 do
    local key, last = rule[at + 1] .. entries[place], 63 + #user
    local head = entries[place] ~= member and redis.pcall('GETRANGE', key, 0, last)
    -- A value of another type is no session. Any other error fails the script: a denied read must not lift the limit.
    if type(head) == 'table' and string.sub(head.err, 1, 9) ~= 'WRONGTYPE' then redis.call('GETRANGE', key, 0, last) end
    if type(head) == 'string' and string.sub(head, 1, 11) == '{"expires":' and string.sub(head, 65) == user then
      local expires = tonumber(string.sub(head, 12, 29))
      if lifetime and expires then
        expires = math.min(expires, math.floor((tonumber(string.sub(head, 41, 56)) or 0) / 1000) + lifetime)
      end
      if expires and expires > now then live = live + 1 end
      if live >= max then return true end
    end
  end
  return false
end
