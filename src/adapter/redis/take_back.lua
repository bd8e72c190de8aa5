-- Takes back that a signature was used. KEYS: server, signatures. ARGV: epoch; its name.
redis.call('ZREM', KEYS[2], ARGV[2])
return answer('done')
