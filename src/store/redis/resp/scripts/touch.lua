-- Moves the expiry of a live session. Arguments: now, the expiry as it stands in a record, when the server ends it; then
-- the time from which on an expiry is left as it is, if one is given.
local head = redis.call('GETRANGE', KEYS[1], 0, 28)
if head == '' then return 0 end
local expires = tonumber(string.sub(head, 12))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
if expires <= tonumber(ARGV[1]) then return 0 end
if ARGV[4] and expires >= tonumber(ARGV[4]) then return 1 end
redis.call('SETRANGE', KEYS[1], 11, ARGV[2])
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1
