-- Notes that a gateway has sent all it has, and opens the bucket for new leases once all have. KEYS: server.
-- ARGV: epoch; the server that the gateway has read; by; how long to wait for the others (microseconds); 1 if nothing
-- can be forgotten; who lives.
if server ~= ARGV[2] then return answer('stranger') end
if open == server then return answer('open') end
local asked = math.min(redis.call('HGET', KEYS[1], 'asked ' .. server) or now, now)
redis.call('HSET', KEYS[1], 'asked ' .. server, exact(asked), 'in ' .. ARGV[3], server)
local all = true
for at = 6, #ARGV do
  if redis.call('HGET', KEYS[1], 'in ' .. ARGV[at]) ~= server then all = false end
end
if not all and ARGV[5] ~= '1' and now - asked < tonumber(ARGV[4]) then return answer('waiting') end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', epoch, 'open', server)
return answer('open')
