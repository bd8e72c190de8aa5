-- Every script begins with this: the time, and which life of which server this is. KEYS[1] is the bucket's `server`,
-- ARGV[1] the epoch of a bucket that has none yet.
local time = redis.call('TIME')
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local epoch, open = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'open'))
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
local server = run .. '-' .. epoch
local now = time[1] * 1000000 + time[2] -- microseconds: below 2^53 until the year 2255
local function exact(number) return string.format('%.0f', number) end
local function answer(word, ...) return {word, time[1], time[2], server, ...} end
