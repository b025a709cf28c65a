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

// takeScript: KEYS call; ARGV owner, channel. It returns the fence, due in, expires in, data,
// and owner.
var takeScript = redis.NewScript(common + takeText + `
local fence, tomb = unpack(redis.call('HMGET', KEYS[1], 'f', 't'))
if not fence then return {'not kept'} end
if tomb then return {'ended'} end
return take(KEYS[1], ARGV[1], now(), ARGV[2])
`)

// takeText has the function take. It notifies the former owner on its channel, if the ACL
// permits that: a notice is a hint.
const takeText = showText + `
local function take(call, owner, time, channel)
	redis.call('HINCRBY', call, 'f', 1)
	local former = redis.call('HGET', call, 'o')
	if former ~= owner then
		redis.call('HSET', call, 'o', owner)
		redis.pcall('PUBLISH', channel .. (former or ''), string.sub(call, -32))
	end
	return show(call, time)
end
`

// showText has the function show: the fence of a call, due in, expires in, its data, and its
// owner.
const showText = `
local function show(call, time)
	local fence, due, data, owner = unpack(redis.call('HMGET', call, 'f', 'd', 'b', 'o'))
	local left = redis.call('PTTL', call)
	return {
		whole(fence), due and whole(due - time) or '', left >= 0 and whole(left) or '', data, owner,
	}
end
`

// peekScript: KEYS call. It returns what takeScript returns.
var peekScript = redis.NewScript(common + showText + `
local fence, tomb = unpack(redis.call('HMGET', KEYS[1], 'f', 't'))
if not fence then return {'not kept'} end
if tomb then return {'ended'} end
return show(KEYS[1], now())
`)

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

// dueScript: KEYS due; ARGV partition, before in, how many, after how many. It returns key and
// record of those that are due; only the key of one that has gone.
var dueScript = redis.NewScript(common + showText + `
local time = now()
local shown = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(time + ARGV[2]), 'LIMIT', ARGV[4], ARGV[3])) do
	local call = ARGV[1] .. key
	local fence, tomb = unpack(redis.call('HMGET', call, 'f', 't'))
	if fence and not tomb then
		local record = show(call, time)
		table.insert(record, 1, key)
		table.insert(shown, record)
	else
		table.insert(shown, {key})
	end
end
return shown
`)

// claimScript: KEYS due; ARGV partition, before in, owner, claim time, channel, most, and the
// keys with their fences, or none for any that are due. It returns key and record of those that
// are taken. Their keys are in the slot of the sorted set.
var claimScript = redis.NewScript(common + takeText + `
local time = now()
local before = time + ARGV[2]
local again = whole(before + ARGV[4])
local taken = {}
local function claim(key, seen)
	local call = ARGV[1] .. key
	local fence, tomb = unpack(redis.call('HMGET', call, 'f', 't'))
	if not fence or tomb then
		redis.call('ZREM', KEYS[1], key)
	elseif not seen or fence == seen then
		redis.call('HSET', call, 'd', again)
		redis.call('ZADD', KEYS[1], again, key)
		local record = take(call, ARGV[3], time, ARGV[5])
		table.insert(record, 1, key)
		table.insert(taken, record)
	end
end
if #ARGV > 6 then
	for i = 7, #ARGV, 2 do
		local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
		if score and tonumber(score) <= before then claim(ARGV[i], ARGV[i + 1]) end
	end
else
	for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(before), 'LIMIT', 0, ARGV[6])) do claim(key) end
end
return taken
`)
