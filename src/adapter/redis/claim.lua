-- Notes whose an API key is, unless it is another's. KEYS: the key's entry.
-- ARGV: the account, its bucket; an entry of another account that has been found to be stale, or nothing.
local time = redis.call('TIME')
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[3] and string.match(found, '^%S+') ~= ARGV[1] then return {found, time[1], time[2]} end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. time[1] .. string.format('%06d', time[2]) .. ' ' .. ARGV[2])
return false
