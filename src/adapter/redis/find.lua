-- Stands before `server.lua` and `found.lua`: finds the account of an API key, and names its keys as a script is given
-- them. Only where one server has all keys. KEYS: the key's entry. ARGV: epoch; what every key begins with.
local entry = redis.call('GET', KEYS[1])
local account, bucket = string.match(entry or '', '^(%S+) %d+ (%x%x)$')
if not account then return entry end -- nobody has it, or the entry does not say where its account lies
local of = ARGV[2] .. ':{' .. bucket .. '}:'
local KEYS = {of .. 'server', of .. 'stamps:' .. account, of .. 'account:' .. account, of .. 'pools:' .. account}
