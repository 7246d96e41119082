//! The atomic operations in Redis. Every script reads the server's own clock, so that those of the replicas do not
//! matter.
//!
//! The hash of a job: `r` the record, `n` when it was kept in microseconds (grows with every write, also across an
//! emptied server), `m` when the upstream knew no such job, `o`, `e` and `x` the owner, the epoch (fencing token) and
//! the expiry of the lease.

use std::time::Duration;

use aws_lc_rs::digest;

use super::unavailable::Unavailable;
use crate::ports::leases::FencingToken;

/// A script and the digest under which Redis caches it.
#[derive(Debug)]
pub(super) struct RedisScript {
    pub(super) code: &'static str,
    pub(super) hash: String,
}

impl RedisScript {
    pub(super) fn new(code: &'static str) -> Self {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, code.as_bytes());
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
        let hash = digest.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        Self { code, hash }
    }
}

/// All scripts.
#[derive(Debug)]
pub(super) struct RedisScripts {
    pub(super) claim: RedisScript,
    pub(super) renew: RedisScript,
    pub(super) release: RedisScript,
    pub(super) keep: RedisScript,
    pub(super) missing: RedisScript,
    pub(super) take: RedisScript,
    pub(super) sync: RedisScript,
    pub(super) restore: RedisScript,
    pub(super) pause: RedisScript,
    pub(super) heartbeat: RedisScript,
    pub(super) note_sweep: RedisScript,
    pub(super) share_verified: RedisScript,
}

impl Default for RedisScripts {
    fn default() -> Self {
        Self {
            claim: RedisScript::new(CLAIM),
            renew: RedisScript::new(RENEW),
            release: RedisScript::new(RELEASE),
            keep: RedisScript::new(KEEP),
            missing: RedisScript::new(MISSING),
            take: RedisScript::new(TAKE),
            sync: RedisScript::new(SYNC),
            restore: RedisScript::new(RESTORE),
            pause: RedisScript::new(PAUSE),
            heartbeat: RedisScript::new(HEARTBEAT),
            note_sweep: RedisScript::new(NOTE_SWEEP),
            share_verified: RedisScript::new(SHARE_VERIFIED),
        }
    }
}

/// The epoch as an argument of a script: empty for a write without a lease.
pub(super) fn epoch(fencing_token: FencingToken) -> String {
    match fencing_token {
        FencingToken::Alone => String::new(),
        FencingToken::Epoch(epoch) => epoch.to_string(),
    }
}

/// Whole milliseconds as an argument of a script, at least one.
pub(super) fn millis(span: Duration) -> String {
    span.as_millis().max(1).to_string()
}

/// A script that writes under a lease: only while the lease is still the one that ARGV name, if they name one. KEYS
/// job. ARGV owner, epoch or nothing. Returns 1 for an expired lease, before the rest of the script has done anything.
macro_rules! under_lease {
    ($rest:literal) => {
        concat!(
            "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local h = redis.call('HMGET', KEYS[1], 'n', 'o', 'e', 'x', 'r')
local fenced = ARGV[2] ~= ''
if fenced and (h[2] ~= ARGV[1] or h[3] ~= ARGV[2] or tonumber(h[4] or '0') <= us) then return 1 end
local n = tonumber(h[1] or '0')
local function kept(ms, what, channel, name)
  redis.call('HSET', KEYS[1], 'n', string.format('%.0f', math.max(us, n + 1)))
  if fenced then redis.call('HDEL', KEYS[1], 'o', 'e', 'x') end
  redis.call('PEXPIRE', KEYS[1], ms)
  redis.call('PUBLISH', channel, ARGV[1] .. ' ' .. what .. ' ' .. name)
  return 0
end",
            $rest
        )
    };
}

/// KEYS job. ARGV owner, lease ms, "w" within ms | "a" after n | "-". Returns 0, the epoch, and 1 if another owner's
/// lease had expired | 1, ms left and n | 2. After a backward step of the server's clock, a lease with an impossibly
/// late expiry has expired, and a record with a future time does not count as recent.
const CLAIM: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local h = redis.call('HMGET', KEYS[1], 'n', 'o', 'e', 'x')
local n = tonumber(h[1] or '0')
if ARGV[3] == 'w' and n > 0 and n <= us and us - n < tonumber(ARGV[4]) * 1000 then return {2, '0', '0'} end
if ARGV[3] == 'a' and n > tonumber(ARGV[4]) then return {2, '0', '0'} end
local x = tonumber(h[4] or '0')
local lease = tonumber(ARGV[2])
if h[2] and h[2] ~= ARGV[1] and x > us and x <= us + lease * 2000 then
  return {1, string.format('%.0f', math.ceil((x - us) / 1000)), string.format('%.0f', n)}
end
local e = string.format('%.0f', math.max(us, tonumber(h[3] or '0') + 1))
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'e', e, 'x', string.format('%.0f', us + lease * 1000))
if redis.call('PTTL', KEYS[1]) < lease * 2 then redis.call('PEXPIRE', KEYS[1], lease * 2) end
return {0, e, (h[2] and h[2] ~= ARGV[1]) and '1' or '0'}";

/// KEYS job. ARGV owner, epoch, lease ms. Returns whether it was renewed.
const RENEW: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local h = redis.call('HMGET', KEYS[1], 'o', 'e', 'x')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] or tonumber(h[3] or '0') <= us then return 0 end
local lease = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', us + lease * 1000))
if redis.call('PTTL', KEYS[1]) < lease * 2 then redis.call('PEXPIRE', KEYS[1], lease * 2) end
return 1";

/// KEYS job. ARGV owner, epoch, channel, name of the job. Returns whether the lease was still this one.
const RELEASE: &str = "
local h = redis.call('HMGET', KEYS[1], 'o', 'e')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'o', 'e', 'x')
redis.call('PUBLISH', ARGV[3], ARGV[1] .. ' x ' .. ARGV[4])
return 1";

/// KEYS job. ARGV owner, epoch or nothing, expected n, record, ms to keep it, channel, c | r, name of the job. Returns
/// 0 for kept, 1 for an expired lease, 2 for a record that has been replaced.
const KEEP: &str = under_lease!(
    "
if n ~= tonumber(ARGV[3]) then return 2 end
redis.call('HSET', KEYS[1], 'r', ARGV[4])
redis.call('HDEL', KEYS[1], 'm')
return kept(ARGV[5], ARGV[7], ARGV[6], ARGV[8])"
);

/// KEYS job. ARGV owner, epoch or nothing, ms to remember it, channel, name of the job. Returns the same as KEEP.
const MISSING: &str = under_lease!(
    "
if h[5] then return 2 end
redis.call('HSET', KEYS[1], 'm', string.format('%.0f', us))
return kept(ARGV[3], 'r', ARGV[4], ARGV[5])"
);

/// KEYS calls, slots, pause, meta. ARGV per second, per hour, concurrency, this call, ms until its slot expires, the
/// mark of the known count. Returns 0 and the sequence number of the count | 1 and ms to wait | 2 and ms of the pause |
/// 3 for no free slot | 4 for another count than the known one.
const TAKE: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local p = redis.call('PTTL', KEYS[3])
if p > 0 then return {2, p} end
if redis.call('HGET', KEYS[4], 'mark') ~= ARGV[6] then return {4, 0} end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', us - 3600000000))
local function wait(limit, window)
  local from = '(' .. string.format('%.0f', us - window)
  local count = redis.call('ZCOUNT', KEYS[1], from, '+inf')
  if count < limit then return 0 end
  local blocking = redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES', 'LIMIT', count - limit, 1)
  return tonumber(blocking[2]) + window - us
end
local w = math.max(wait(tonumber(ARGV[1]), 1000000), wait(tonumber(ARGV[2]), 3600000000))
if w > 0 then return {1, math.ceil(w / 1000)} end
local free = string.format('%.0f', us + tonumber(ARGV[5]) * 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', us))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. free, '+inf')
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then return {3, 0} end
redis.call('ZADD', KEYS[2], free, ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[1], string.format('%.0f', us), ARGV[4])
redis.call('PEXPIRE', KEYS[1], 3600000)
return {0, redis.call('HINCRBY', KEYS[4], 'seq', 1)}";

/// KEYS calls, meta, demands. ARGV the known mark or nothing, the known sequence number, how many calls of the hour are
/// certain, a mark for a new count, this replica, calls an hour that its polls need, its calls for callers, ms until
/// its membership expires; then for each call that it made standalone its age in microseconds, and its name. Returns
/// the mark, the sequence number, the age of the count in ms, what the polls of the other live replicas need, their
/// calls for callers, and for a caller without a mark the calls of the hour by ten seconds, the oldest first: their age
/// in seconds, and their number. A count with fewer calls than before is a new one. After a backward step of the
/// server's clock, calls from the future count as made now. The calls that a lost replica made for callers leave the
/// hour evenly.
const SYNC: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local now = string.format('%.0f', us)
local h = redis.call('HMGET', KEYS[2], 'mark', 'seq', 'born', 'reported')
local mark, seq, born, reported = h[1], tonumber(h[2] or '0'), tonumber(h[3] or '0'), tonumber(h[4] or '0')
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  redis.call('ZADD', KEYS[1], now, name)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', us - 3600000000))
local counted = redis.call('ZCARD', KEYS[1])
local known = tonumber(ARGV[2])
if not mark or (mark == ARGV[1] and (seq < known or counted < tonumber(ARGV[3]))) then
  mark, seq, born, reported = ARGV[4], math.max(seq, known), us, 0
end
if born > us then born = us end
local slices = {}
for i = ARGV[1] == '' and 360 or 0, 1, -1 do
  local from, to = us - i * 10000000, us - (i - 1) * 10000000
  local count = redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', from), string.format('%.0f', to))
  if count > 0 then
    slices[#slices + 1] = (i - 1) * 10
    slices[#slices + 1] = count
  end
end
local missed = us + tonumber(ARGV[8]) * 1000
redis.call('HSET', KEYS[3], ARGV[5], string.format('%.0f %s %s', missed, ARGV[6], ARGV[7]))
redis.call('PEXPIRE', KEYS[3], 7200000)
local demand, callers = 0, 0
local reports = redis.call('HGETALL', KEYS[3])
for i = 1, #reports, 2 do
  local x, d, c = string.match(reports[i + 1], '^(%d+) (%d+) (%d+)$')
  local gone = us - tonumber(x or '0')
  if not x or gone >= 3600000000 or tonumber(x) > missed then
    redis.call('HDEL', KEYS[3], reports[i])
  elseif reports[i] ~= ARGV[5] then
    if gone < 0 then demand = demand + tonumber(d) end
    callers = callers + math.floor(tonumber(c) * math.min(1, 1 - gone / 3600000000))
  end
end
for i = 9, #ARGV, 2 do
  local at = string.format('%.0f', us - tonumber(ARGV[i]))
  local added = redis.call('ZADD', KEYS[1], 'NX', at, ARGV[5] .. ':' .. ARGV[i + 1])
  seq, reported = seq + added, reported + added
end
redis.call('HSET', KEYS[2], 'mark', mark, 'seq', string.format('%.0f', seq), 'born', string.format('%.0f', born),
  'reported', string.format('%.0f', reported))
redis.call('PEXPIRE', KEYS[2], 7200000)
redis.call('PEXPIRE', KEYS[1], 3600000)
return {mark, seq, math.floor((us - born) / 1000), demand, callers, slices}";

/// KEYS calls, meta. ARGV the mark of the count, this replica; then the calls of the hour that it knows, the newest
/// first: their age in microseconds, and their number. Puts back as many as the count lacks of those from before it
/// began, beside those that replicas reported to it: they made them standalone, and this replica does not know them.
/// Returns the sequence number, how many calls were made since the count began, and how many were put back.
const RESTORE: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local h = redis.call('HMGET', KEYS[2], 'mark', 'seq', 'born', 'reported')
if h[1] ~= ARGV[1] then return {tonumber(h[2] or '0'), 0, 0} end
local born = tonumber(h[3])
local hour = '(' .. string.format('%.0f', us - 3600000000)
local need = tonumber(h[4] or '0') - redis.call('ZCOUNT', KEYS[1], hour, string.format('%.0f', born))
for i = 3, #ARGV, 2 do need = need + tonumber(ARGV[i + 1]) end
local put = 0
for i = 3, #ARGV, 2 do
  local at = string.format('%.0f', math.min(us - tonumber(ARGV[i]), born))
  for _ = 1, math.min(need - put, tonumber(ARGV[i + 1])) do
    put = put + 1
    redis.call('ZADD', KEYS[1], at, string.format('%s:%.0f:%d', ARGV[2], us, put))
  end
end
redis.call('PEXPIRE', KEYS[1], 3600000)
return {tonumber(h[2] or '0'), redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', born), '+inf'), put}";

/// KEYS pause. ARGV ms. A longer pause stays.
const PAUSE: &str = "
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
return 1";

/// KEYS members, born. ARGV this replica, ms until its membership expires, a mark for an empty server, channel. Returns
/// the number of members, the mark, and the server's time in microseconds. The message proves that notifications are
/// delivered.
const HEARTBEAT: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', us))
local missed = string.format('%.0f', us + tonumber(ARGV[2]) * 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. missed, '+inf')
redis.call('ZADD', KEYS[1], missed, ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'NX')
redis.call('PUBLISH', ARGV[4], ARGV[1] .. ' b -')
return {tostring(redis.call('ZCARD', KEYS[1])), redis.call('GET', KEYS[2]), string.format('%.0f', us)}";

/// KEYS job that stands for the lease, record of the sweeps. ARGV owner, epoch or nothing, record, ms to keep it. Returns 0
/// for an expired lease, and otherwise 1; the lease stays.
const NOTE_SWEEP: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
if ARGV[2] ~= '' then
  local h = redis.call('HMGET', KEYS[1], 'o', 'e', 'x')
  if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] or tonumber(h[3] or '0') <= us then return 0 end
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 1";

/// KEYS counts. ARGV this replica, the jobs that it verifies, ms until its report expires. Returns how many jobs all
/// replicas verify. After a backward step of the server's clock, a report with an impossibly late expiry has expired.
const SHARE_VERIFIED: &str = "
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local until_us = us + tonumber(ARGV[3]) * 1000
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', until_us, ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all = 0
local reports = redis.call('HGETALL', KEYS[1])
for i = 1, #reports, 2 do
  local x, jobs = string.match(reports[i + 1], '^(%d+) (%d+)$')
  if not x or tonumber(x) <= us or tonumber(x) > until_us then
    redis.call('HDEL', KEYS[1], reports[i])
  else
    all = all + tonumber(jobs)
  end
end
return all";

/// The outcome of a script that writes a record.
pub(super) enum WriteOutcome {
    Done,
    LeaseLost,
    Overtaken,
}

impl WriteOutcome {
    /// # Errors
    /// Returns an error for a number that no script returns.
    pub(super) fn of(code: i64) -> Result<Self, Unavailable> {
        match code {
            0 => Ok(Self::Done),
            1 => Ok(Self::LeaseLost),
            2 => Ok(Self::Overtaken),
            _ => Err(Unavailable::Failed(format!("a script returned {code}, which has no meaning"))),
        }
    }
}
