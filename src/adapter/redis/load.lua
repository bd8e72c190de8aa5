-- All of an account's documents, as one moment has them. KEYS: server, stamps, account, pools.
return answer('loaded', redis.call('GET', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[2]))
