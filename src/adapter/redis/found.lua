-- All documents of the account that `find.lua` has found, as one moment has them.
return answer(account, redis.call('GET', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[2]))
