//! The Lua scripts, for changes that must be atomic. Each uses a single key, so that it also works in a cluster. On a
//! single server `CREATE` also takes the index. There the scripts with a limit per user also read that user's
//! sessions, under keys that they build themselves.
//!
//! The numbers in the scripts are the positions of a record's fields, counted from 1. The tests of `record` check
//! them.

pub struct Script {
    pub text: &'static str,
    /// The SHA-1 of the text. A server that has loaded the script finds it by this digest.
    pub digest: &'static str,
}

macro_rules! scripts {
    ($($name:ident = $($file:literal)+, $digest:literal;)*) => {
        $(pub static $name: Script =
            Script { text: concat!($(include_str!(concat!("scripts/", $file))),+), digest: $digest };)*

        #[cfg(test)]
        const ALL: &[(&str, &Script)] = &[$((concat!($($file, " "),+), &$name)),*];
    };
}

scripts! {
    CREATE = "create.lua", "6f6b2892b4e3795bb6382548d46012d4dc09ee0a";
    CREATE_WITHIN_LIMIT = "room.lua" "create.lua", "374cc6a8ac8dd963a3a2526871812e6739ca51b9";
    UPDATE = "update.lua", "556448773a31e7c0b794707ef4e5399f94f581c3";
    UPDATE_WITHIN_LIMIT = "room.lua" "update.lua", "e479880c1a1b9dfaaa06384262b44e060818d84b";
    TOUCH = "touch.lua", "54663459ff757d5d12560d0f603173e387f2afe9";
    END_OF_USER = "end_of_user.lua", "bb4e8a137406acb5de308c1b7b78003b313cc730";
    END_EXPIRED = "end_expired.lua", "005a444f647bab48de8527c95afafb487879208e";
    FORGET = "forget.lua", "a56bbd66131beae67e98736687923eb7419e362c";
    ENTER = "enter.lua", "27d8e420a0ca4a9d19265d9051b04001ed1403f7";
    REPLACE = "replace.lua", "7e3262cb162db7183d395add2c9bd82b581c6bec";
    MOVE = "move.lua", "9c4f3c07faad5e8a95629afe8d3f9a09373e6491";
}

#[cfg(test)]
mod tests {
    use sha1::{Digest, Sha1};

    use super::*;

    #[test]
    fn digests_match_the_scripts() {
        for (file, script) in ALL {
            let digest: String = Sha1::digest(script.text).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(script.digest, digest, "{file}");
        }
    }
}
