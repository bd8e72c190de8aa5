-- Notes that a gateway lives, forgets those that do not, tells who does. KEYS: server, gateways.
-- ARGV: epoch; by; how long a gateway lives after its heartbeat (microseconds).
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. exact(now - ARGV[3]))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. exact(now + ARGV[3]), '+inf') -- from before the clock was set back
-- After a gap, or when the list is new, nobody can tell who else lives.
if redis.call('ZCARD', KEYS[2]) == 0 or not redis.call('HGET', KEYS[1], 'kept_since') then
  redis.call('HSET', KEYS[1], 'kept_since', exact(now))
end
redis.call('ZADD', KEYS[2], exact(now), ARGV[2])
return answer('live', redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf'))
