-- Tells whether everyone who lives has had the time to be heard. KEYS: server.
-- ARGV: epoch; how long a gateway lives after its heartbeat (microseconds).
local since = redis.call('HGET', KEYS[1], 'kept_since')
return answer(since and now - since >= tonumber(ARGV[2]) and 'whole' or 'new')
