-- Notes that a gateway has sent all it has, and opens the bucket for new leases once all have. KEYS: server.
-- ARGV: epoch; the server that the gateway has read; by; how long to wait for the others (microseconds); 1 if nothing
-- can be forgotten; 1 if the list of who lives is whole; who lives.
if server ~= ARGV[2] then return answer('stranger') end
if open == server then return answer('open') end
local asked = math.min(redis.call('HGET', KEYS[1], 'asked ' .. server) or now, now)
redis.call('HSET', KEYS[1], 'asked ' .. server, exact(asked), 'in ' .. ARGV[3], server)
local all = ARGV[6] == '1'
for at = 7, #ARGV do
  if redis.call('HGET', KEYS[1], 'in ' .. ARGV[at]) ~= server then all = false end
end
if not all and ARGV[5] ~= '1' and now - asked < tonumber(ARGV[4]) then return answer('waiting') end
local kept_since = redis.call('HGET', KEYS[1], 'kept_since')
-- What happened before this moment may be forgotten, where anything can be.
local opened = ARGV[5] == '1' and redis.call('HGET', KEYS[1], 'opened') or exact(now)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', epoch, 'open', server, 'opened', opened)
if kept_since then redis.call('HSET', KEYS[1], 'kept_since', kept_since) end
return answer('open')
