-- Forgets whose an API key is, if it is this account's and has not been claimed since. KEYS: the key's entry.
-- ARGV: the account; when it gave the key up (microseconds).
local whose, claimed = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+)')
if whose == ARGV[1] and tonumber(claimed) <= tonumber(ARGV[2]) then redis.call('DEL', KEYS[1]) end
