package redis

import "github.com/redis/go-redis/v9"

// The rules of a dialog.Store, as the server runs them. Numbers of Lua are exact below
// 2^53, and are written without an exponent by whole.

const common = `
local function whole(n) return string.format('%.0f', n) end
local function now()
	local t = redis.call('TIME')
	return t[1] * 1000 + math.floor(t[2] / 1000)
end
`

// saveScript: KEYS call, due; ARGV key, fence, owner, due in, expires in, data.
var saveScript = redis.NewScript(common + `
local fence, owner, tomb = unpack(redis.call('HMGET', KEYS[1], 'f', 'o', 't'))
if fence then
	local stored, mine = tonumber(fence), tonumber(ARGV[2])
	if tomb then
		if stored >= mine then return 'ended' end
	elseif stored > mine or stored == mine and owner ~= ARGV[3] then
		return 'moved'
	end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'f', ARGV[2], 'o', ARGV[3], 'b', ARGV[6])
if ARGV[4] == '' then
	redis.call('ZREM', KEYS[2], ARGV[1])
else
	local due = whole(now() + ARGV[4])
	redis.call('HSET', KEYS[1], 'd', due)
	redis.call('ZADD', KEYS[2], due, ARGV[1])
end
if ARGV[5] ~= '' and redis.call('PEXPIRE', KEYS[1], ARGV[5]) == 1 and redis.call('EXISTS', KEYS[1]) == 0 then
	redis.call('ZREM', KEYS[2], ARGV[1])
end
return 'ok'
`)

// takeScript: KEYS call; ARGV owner, channel. It returns the fence, due in, expires in, and
// data.
var takeScript = redis.NewScript(common + takeText + `
local fence, tomb = unpack(redis.call('HMGET', KEYS[1], 'f', 't'))
if not fence then return {'not kept'} end
if tomb then return {'ended'} end
return take(KEYS[1], ARGV[1], now(), ARGV[2])
`)

// takeText has the function take. It tells the former owner on its channel, if it may: a
// notice is a hint.
const takeText = `
local function take(call, owner, time, channel)
	local fence = redis.call('HINCRBY', call, 'f', 1)
	local due, data, former = unpack(redis.call('HMGET', call, 'd', 'b', 'o'))
	if former ~= owner then
		redis.call('HSET', call, 'o', owner)
		redis.pcall('PUBLISH', channel .. (former or ''), string.sub(call, -32))
	end
	local left = redis.call('PTTL', call)
	return {
		whole(fence), due and whole(due - time) or '', left >= 0 and whole(left) or '', data,
	}
end
`

// checkScript: KEYS call; ARGV fence.
var checkScript = redis.NewScript(`
local fence, tomb = unpack(redis.call('HMGET', KEYS[1], 'f', 't'))
if not fence then return 'not kept' end
local stored, mine = tonumber(fence), tonumber(ARGV[1])
if tomb and stored >= mine then return 'ended' end
if stored > mine then return 'moved' end
return 'ok'
`)

// dropScript: KEYS call, due; ARGV key, fence, tombstone for.
var dropScript = redis.NewScript(common + `
local fence, tomb = unpack(redis.call('HMGET', KEYS[1], 'f', 't'))
local stored, mine = tonumber(fence or 0), tonumber(ARGV[2])
if stored > mine and not tomb then return 'moved' end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if tonumber(ARGV[3]) > 0 then
	redis.call('HSET', KEYS[1], 'f', whole(math.max(stored, mine)), 't', 1)
	redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 'ok'
`)

// readyText: KEYS due; ARGV before in. It returns how many calls are due.
const readyText = common + `return redis.call('ZCOUNT', KEYS[1], '-inf', whole(now() + ARGV[1]))`

// claimScript: KEYS due; ARGV partition, before in, owner, most, claim time, channel. It returns key
// and record of those that are taken. Their keys are in the slot of the sorted set.
var claimScript = redis.NewScript(common + takeText + `
local time = now()
local before = time + ARGV[2]
local again = whole(before + ARGV[5])
local taken = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(before), 'LIMIT', 0, ARGV[4])) do
	local call = ARGV[1] .. key
	local fence, tomb = unpack(redis.call('HMGET', call, 'f', 't'))
	if fence and not tomb then
		redis.call('HSET', call, 'd', again)
		redis.call('ZADD', KEYS[1], again, key)
		local record = take(call, ARGV[3], time, ARGV[6])
		table.insert(record, 1, key)
		table.insert(taken, record)
	else
		redis.call('ZREM', KEYS[1], key)
	end
end
return taken
`)
