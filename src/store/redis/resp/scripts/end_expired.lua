-- Removes an expired session. ARGV: now.
local head = redis.call('GETRANGE', KEYS[1], 0, 28)
local expires = tonumber(string.sub(head, 12))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return 0 end
if expires > tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
