-- Replaces a live session, whose creation stays. Arguments: now, the value before the creation, the value after it,
-- the user that the session must be of and what follows it, when the server ends it; then the creation that it must
-- have, if one is given. `0`: there is none. `1`. `2`: it is another user's, or of another creation.
local head = redis.call('GETRANGE', KEYS[1], 0, 63 + #ARGV[4])
if head == '' then return 0 end
local expires = tonumber(string.sub(head, 12, 29))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
if expires <= tonumber(ARGV[1]) then return 0 end
local created = string.sub(head, 41, 56)
if string.sub(head, 65) ~= ARGV[4] then return 2 end
if ARGV[6] and created ~= ARGV[6] then return 2 end
redis.call('SET', KEYS[1], ARGV[2] .. created .. ARGV[3], 'PXAT', ARGV[5])
return 1
