//! What must happen on a server in one step: each on one key, so that it runs in a cluster too.
//!
//! The numbers in them are the places of `record`, counted from 1; its tests hold them together. A session that is
//! expired by the store's clock is absent, whether or not the server has ended it. `-1` says that the value is none of
//! this store's.

use std::sync::LazyLock;

pub(super) struct Script {
    pub text: &'static str,
    /// By which a server that has seen the text knows it.
    pub hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// Creates a session where the server holds one. Arguments: now, the value, when the server ends it. `1`, or the live
/// session's value.
pub(super) static CREATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local head = redis.call('GETRANGE', KEYS[1], 0, 28)
if head ~= '' then
  local expires = tonumber(string.sub(head, 12))
  if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
  if expires > tonumber(ARGV[1]) then return redis.call('GET', KEYS[1]) end
end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1"#,
    )
});

/// Replaces a live session, whose creation stays. Arguments: now, the value before the creation, the value after it,
/// the user that the session must be of and what follows it, when the server ends it; then the creation that it must
/// have, if one is given. `0`: there is none. `1`. `2`: it is another user's, or of another creation.
pub(super) static UPDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local head = redis.call('GETRANGE', KEYS[1], 0, 63 + #ARGV[4])
if head == '' then return 0 end
local expires = tonumber(string.sub(head, 12, 29))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
if expires <= tonumber(ARGV[1]) then return 0 end
local created = string.sub(head, 41, 56)
if string.sub(head, 65) ~= ARGV[4] then return 2 end
if ARGV[6] and created ~= ARGV[6] then return 2 end
redis.call('SET', KEYS[1], ARGV[2] .. created .. ARGV[3], 'PXAT', ARGV[5])
return 1"#,
    )
});

/// Moves the expiry of a live session. Arguments: now, the expiry as it stands in a record, when the server ends it; then
/// the time from which on an expiry is left as it is, if one is given.
pub(super) static TOUCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local head = redis.call('GETRANGE', KEYS[1], 0, 28)
if head == '' then return 0 end
local expires = tonumber(string.sub(head, 12))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
if expires <= tonumber(ARGV[1]) then return 0 end
if ARGV[4] and expires >= tonumber(ARGV[4]) then return 1 end
redis.call('SETRANGE', KEYS[1], 11, ARGV[2])
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1"#,
    )
});

/// Ends a session of a user. Arguments: now, the user and what follows it, then the creation that it must have, if one
/// is given. `1`: it was live. `2`: it was expired.
pub(super) static END_OF_USER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local head = redis.call('GETRANGE', KEYS[1], 0, 63 + #ARGV[2])
if head == '' then return 0 end
local expires = tonumber(string.sub(head, 12, 29))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
if string.sub(head, 65) ~= ARGV[2] then return 0 end
if ARGV[3] and string.sub(head, 41, 56) ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
if expires <= tonumber(ARGV[1]) then return 2 end
return 1"#,
    )
});

/// Removes a session that is expired. Argument: now.
pub(super) static END_EXPIRED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local head = redis.call('GETRANGE', KEYS[1], 0, 28)
if head == '' then return 0 end
local expires = tonumber(string.sub(head, 12))
if string.sub(head, 1, 11) ~= '{"expires":' or not expires then return -1 end
if expires > tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])"#,
    )
});

/// Removes entries of an index that still have the scores given. Arguments: entries and scores by turns.
pub(super) static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local forgotten = 0
for at = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if score and tonumber(score) == tonumber(ARGV[at + 1]) then
    forgotten = forgotten + redis.call('ZREM', KEYS[1], ARGV[at])
  end
end
return forgotten"#,
    )
});

/// Gives an entry of an index another score, if it still has the one given. Arguments: the entry, its score, the other.
pub(super) static RESCORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return 1"#,
    )
});

/// Replaces a value that is still the one given. Arguments: that one, the other.
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1"#,
    )
});
