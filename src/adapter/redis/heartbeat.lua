-- Notes that a gateway lives, forgets those that do not, tells who does. KEYS: server, gateways.
-- ARGV: epoch; by; how long a gateway lives after its heartbeat (microseconds).
redis.call('ZADD', KEYS[2], exact(now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. exact(now - ARGV[3]))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. exact(now + ARGV[3]), '+inf') -- from before the clock was set back
return answer('live', redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf'))
