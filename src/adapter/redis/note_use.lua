-- Notes that a signature is used, unless it was or nobody can say. KEYS: server, signatures.
-- ARGV: epoch; its name; when it was made, and when it is over (microseconds); how many may be remembered here.
if now >= tonumber(ARGV[4]) then return answer('over') end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', exact(now)) -- those that are over
if redis.call('ZADD', KEYS[2], 'NX', ARGV[4], ARGV[2]) == 0 then return answer('again') end
local refusal
-- What was used before the bucket was opened may be forgotten.
local opened = open == server and redis.call('HGET', KEYS[1], 'opened')
if open == server and not opened then -- by a gateway of an earlier version
  redis.call('HSET', KEYS[1], 'opened', exact(now))
end
if not opened or tonumber(ARGV[3]) < tonumber(opened) then
  refusal = 'unsure'
elseif redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[5]) then
  refusal = 'full'
end
if refusal then
  redis.call('ZREM', KEYS[2], ARGV[2])
  return answer(refusal)
end
return answer('first')
