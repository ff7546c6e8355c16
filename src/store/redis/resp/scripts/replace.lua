-- Replaces a value unless it has changed. ARGV: the old value, the new one, and its expiry if it has one.
-- Returns 0: it has changed; 1: done.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] then
  redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1
