-- Moves the expiry of a session unless its times have changed. ARGV: the first 68 bytes of the record, with the times and
-- whether there is a user; expiry field, expiry.
-- Returns 0: they have changed; 1: done.
if redis.call('GETRANGE', KEYS[1], 0, 67) ~= ARGV[1] then return 0 end
-- A full server accepts SETRANGE, because another write precedes it.
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
if redis.call('SETRANGE', KEYS[1], 11, ARGV[2]) < 64 then
  -- The expiry was in the past, so the server had removed the session.
  redis.call('DEL', KEYS[1])
end
return 1
