//! What Redis does in one go. Each script says which keys and arguments it takes.
//!
//! They are sent by their text and not by their hash, as those of the session store are: they are short, and no restart of
//! Redis can have forgotten them. The field `last` of the sums is the last number that was given, `n` and `b` are how
//! many messages wait and how many bytes they have, `dn` and `db` the same of dead letters.

use redis::Cmd;

/// Keys: the message's identity, its nonce, the stream, the sums. Arguments: identity, how long it is remembered, how long
/// the nonce is (0: there is none), what is to be stored, a mark, how many may wait, how many bytes. The answer is the number, or
/// below zero: -1 the nonce came with another message, -2 the message was here before, -3 there is no room.
///
/// Numbers that were given again, because somebody has deleted the sums, would be refused by the stream; then its own last
/// number counts.
pub(super) const PUT: &str = "\
local with = redis.call('GET', KEYS[2])
if with and with ~= ARGV[1] and ARGV[3] ~= '0' then return -1 end
if redis.call('EXISTS', KEYS[1]) == 1 then return -2 end
local sums = redis.call('HMGET', KEYS[4], 'n', 'b')
if tonumber(sums[1] or 0) >= tonumber(ARGV[6]) then return -3 end
if tonumber(sums[2] or 0) + #ARGV[4] > tonumber(ARGV[7]) then return -3 end
local number = redis.call('HINCRBY', KEYS[4], 'last', 1)
local id = string.format('%.0f-%s', number, ARGV[5])
local added = redis.pcall('XADD', KEYS[3], id, 'v', ARGV[4])
if type(added) == 'table' and added.err then
  local about = redis.call('XINFO', 'STREAM', KEYS[3])
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then number = tonumber(string.match(about[i + 1], '^%d+')) + 1 end
  end
  redis.call('XADD', KEYS[3], string.format('%.0f-%s', number, ARGV[5]), 'v', ARGV[4])
  redis.call('HSET', KEYS[4], 'last', string.format('%.0f', number))
end
redis.call('HINCRBY', KEYS[4], 'n', 1)
redis.call('HINCRBY', KEYS[4], 'b', #ARGV[4])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '0' then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3]) end
return number";

/// Keys: the sums, the streams of all parts. Arguments, as often as need be: the part, an id, the entry's bytes.
pub(super) const SETTLE: &str = "\
for i = 1, #ARGV, 3 do
  if redis.call('XDEL', KEYS[ARGV[i] + 2], ARGV[i + 1]) == 1 then
    redis.call('HINCRBY', KEYS[1], 'n', -1)
    redis.call('HINCRBY', KEYS[1], 'b', -ARGV[i + 2])
  end
end
return false";

/// Keys: the stream, the dead letters, the sums. Arguments: id, bytes, what is to be stored, a mark, how many dead letters
/// may be, and how many bytes. The answer is how many made room.
pub(super) const BURY: &str = "\
if redis.call('XDEL', KEYS[1], ARGV[1]) ~= 1 then return 0 end
redis.call('HINCRBY', KEYS[3], 'n', -1)
redis.call('HINCRBY', KEYS[3], 'b', -ARGV[2])
local number = redis.call('HINCRBY', KEYS[3], 'last', 1)
redis.call('XADD', KEYS[2], string.format('%.0f-%s', number, ARGV[4]), 'v', ARGV[3])
local count = redis.call('HINCRBY', KEYS[3], 'dn', 1)
local bytes = redis.call('HINCRBY', KEYS[3], 'db', #ARGV[3])
local lost = 0
while count > tonumber(ARGV[5]) or bytes > tonumber(ARGV[6]) do
  local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  if not first then break end
  redis.call('XDEL', KEYS[2], first[1])
  count = redis.call('HINCRBY', KEYS[3], 'dn', -1)
  bytes = redis.call('HINCRBY', KEYS[3], 'db', -#first[2][2])
  lost = lost + 1
end
return lost";

/// Keys: the dead letters, the stream, the sums. Arguments: id, bytes, what is to be stored, a mark. The answer is how many
/// there were of it.
pub(super) const REVIVE: &str = "\
if redis.call('XDEL', KEYS[1], ARGV[1]) ~= 1 then return 0 end
redis.call('HINCRBY', KEYS[3], 'dn', -1)
redis.call('HINCRBY', KEYS[3], 'db', -ARGV[2])
local number = redis.call('HINCRBY', KEYS[3], 'last', 1)
redis.call('XADD', KEYS[2], string.format('%.0f-%s', number, ARGV[4]), 'v', ARGV[3])
redis.call('HINCRBY', KEYS[3], 'n', 1)
redis.call('HINCRBY', KEYS[3], 'b', #ARGV[3])
return 1";

/// Keys: the dead letters, the sums. Arguments: id, bytes. The answer is how many there were of it.
pub(super) const DROP_DEAD: &str = "\
if redis.call('XDEL', KEYS[1], ARGV[1]) ~= 1 then return 0 end
redis.call('HINCRBY', KEYS[2], 'dn', -1)
redis.call('HINCRBY', KEYS[2], 'db', -ARGV[2])
return 1";

/// Keys: the stream, the sums, what was dropped. Arguments: id, bytes, the part, how long replicas are told of it in
/// milliseconds. The answer is how many there were of it.
pub(super) const DROP_WAITING: &str = "\
if redis.call('XDEL', KEYS[1], ARGV[1]) ~= 1 then return 0 end
redis.call('HINCRBY', KEYS[2], 'n', -1)
redis.call('HINCRBY', KEYS[2], 'b', -ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[3] .. ':' .. ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return 1";

/// Tells that this replica lives, renews its leases, and takes free ones up to its share. Keys: the members, what was
/// dropped, the sums, the leases of all parts. Arguments: who we are, how long a lease lasts, and '1' if we are leaving. The answer is our
/// share, the sums `n`, `b`, `dn`, `db`, the parts that are still ours, those that are ours from now on, and what was dropped of
/// late.
///
/// Shares differ by one at most and add up to all parts, by the order of the replicas' names.
pub(super) const TEND: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local share = 0
if ARGV[3] == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
  local members = redis.call('ZRANGE', KEYS[1], 0, -1)
  table.sort(members)
  local parts = #KEYS - 3
  for rank, member in ipairs(members) do
    if member == ARGV[1] then
      share = math.floor(parts / #members)
      if rank <= parts % #members then share = share + 1 end
    end
  end
end
local ours, taken, free = {}, {}, {}
for i = 4, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
    table.insert(ours, i - 4)
  elseif not holder then
    table.insert(free, i)
  end
end
for _, i in ipairs(free) do
  if #ours + #taken >= share then break end
  redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
  table.insert(taken, i - 4)
end
local sums = redis.call('HMGET', KEYS[3], 'n', 'b', 'dn', 'db')
for i = 1, 4 do sums[i] = tonumber(sums[i] or 0) end
return {share, sums, ours, taken, redis.call('ZRANGE', KEYS[2], 0, -1)}";

/// Keys: leases. Argument: who we are.
pub(super) const RELEASE: &str = "\
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
return false";

/// A write like all others. Keys: anything of ours. Argument: how long it stays.
pub(super) const PROBE: &str = "redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) return false";

/// A script on these keys; arguments are to be added.
pub(super) fn on<'k>(text: &str, keys: impl IntoIterator<Item = &'k str>) -> Cmd {
    let keys: Vec<&str> = keys.into_iter().collect();
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len());
    for key in keys {
        command.arg(key);
    }
    command
}
