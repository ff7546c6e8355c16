-- Removes index entries that still have the given versions. ARGV: entries and versions, alternating.
local forgotten = 0
for at = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if score and tonumber(score) == tonumber(ARGV[at + 1]) then
    forgotten = forgotten + redis.call('ZREM', KEYS[1], ARGV[at])
  end
end
return forgotten
