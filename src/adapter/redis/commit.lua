-- Writes the documents of one account if they still are what the writer has seen. Compares and swaps, no more.
-- KEYS: server, stamps, account, pools, ended, accounts, outbox, events.
-- ARGV: epoch; believed server, its time (seconds, nanoseconds), most nanoseconds off; 1 if it grants; by; 1 if it asks
-- for the turn, how long it lasts (microseconds); the account; channel, notice; the head's expected stamp, stamp, text;
-- the product, the pool's expected stamp, stamp, text; how many packages have ended, each; each event's id and text.
local believed, by, account = ARGV[2], ARGV[7], ARGV[10]
local head_stamp, head = ARGV[14], ARGV[15]
local product, pool_stamp, pool = ARGV[16], ARGV[18], ARGV[19]
local has_head, has_pool = head_stamp ~= '', product ~= ''
local turn = 'turn/' .. product

if believed ~= server and (believed ~= '' or ARGV[6] == '1') then return answer('stranger') end
local off = (time[1] - ARGV[3]) * 1000000000 + (time[2] * 1000 - ARGV[4])
if math.abs(off) > tonumber(ARGV[5]) then return answer('time_off') end

local known, known_pool, holder = unpack(redis.call('HMGET', KEYS[2], 'account', 'pool/' .. product, turn))
local whose, until_when = string.match(has_pool and holder or '', '^(%S+) (%d+)$')
-- A turn that would last longer than any does was given before the clock was set back.
local taken = whose and now < tonumber(until_when) and until_when - now <= tonumber(ARGV[9])
if taken and whose ~= by then return answer('busy') end

local function judge(present, expected, stamp)
  if present == stamp then return 'repeated' end
  return (present or '') == expected and 'write' or 'conflict'
end
local verdict = known and 'write' or 'conflict'
if has_head then verdict = judge(known, ARGV[13], head_stamp) end
if has_pool then
  local of_pool = judge(known_pool, ARGV[17], pool_stamp)
  if not has_head then
    if of_pool ~= 'write' or known then verdict = of_pool end
  elseif verdict ~= of_pool then
    verdict = 'conflict'
  end
end
if verdict == 'repeated' then return answer('repeated') end
if verdict == 'conflict' then
  if ARGV[8] == '1' and has_pool and known and not taken then
    redis.call('HSET', KEYS[2], turn, by .. ' ' .. exact(now + ARGV[9]))
  end
  return answer('conflict', redis.call('GET', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[2]))
end
if ARGV[6] == '1' and open ~= server then return answer('closed') end

-- A foreign key in the place of one of ours stops the script here, before anything is written.
local ended, events = tonumber(ARGV[20]), 21 + ARGV[20]
local before = has_head and redis.call('GET', KEYS[3])
if has_head then redis.call('ZCARD', KEYS[6]) end
if ended > 0 then redis.call('LLEN', KEYS[5]) end
if ARGV[events] then redis.call('XLEN', KEYS[7]) redis.call('SCARD', KEYS[8]) end
if has_pool then redis.call('HSET', KEYS[4], product, pool) end

if has_pool then redis.call('HSET', KEYS[2], 'pool/' .. product, pool_stamp) end
if holder then redis.call('HDEL', KEYS[2], turn) end
if has_head then
  redis.call('HSET', KEYS[2], 'account', head_stamp)
  redis.call('SET', KEYS[3], head)
  redis.call('ZADD', KEYS[6], 0, account)
end
for at = 21, events - 1 do redis.call('LPUSH', KEYS[5], ARGV[at]) end
for at = events, #ARGV, 2 do
  if redis.call('SADD', KEYS[8], account .. '/' .. ARGV[at]) == 1 then
    redis.call('XADD', KEYS[7], '*', 'account', account, 'id', ARGV[at], 'event', ARGV[at + 1])
  end
end
if has_head then redis.call('PUBLISH', ARGV[11], ARGV[12]) end
return answer('written', before)
