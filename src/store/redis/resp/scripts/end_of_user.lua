-- Ends a user's session. ARGV: now, the user and the text after it, then optionally the creation that it must have.
-- Returns the creation of a live session; 1: it had expired; 0: none.
local head = redis.call('GETRANGE', KEYS[1], 0, 63 + #ARGV[2])
local expires = tonumber(string.sub(head, 12, 29))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return 0 end
if string.sub(head, 65) ~= ARGV[2] then return 0 end
local created = string.sub(head, 41, 56)
if ARGV[3] and created ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
if expires <= tonumber(ARGV[1]) then return 1 end
return created
