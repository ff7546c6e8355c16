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
    CREATE = "create.lua", "0b8025478ac77f32fcfba770632e888bbeba5921";
    CREATE_WITHIN_LIMIT = "room.lua" "create.lua", "4026a3486cfa72156ec8241bcd098207020f908f";
    UPDATE = "update.lua", "c8e4f8f5474dccba47317825c80f062a5bddce04";
    UPDATE_WITHIN_LIMIT = "room.lua" "update.lua", "72bb8b4e85c8494a5e45f429fd2b35a46adfc390";
    TOUCH = "touch.lua", "c2a3e2ed56f452861e1b4a32994a7430f68bb7be";
    END_OF_USER = "end_of_user.lua", "b3e4835a3f2d54bd5fb63384d1e60e15e2383186";
    END_EXPIRED = "end_expired.lua", "83cf8a3f76ac92cd195236efb984813a8b6c991f";
    FORGET = "forget.lua", "a410d8c724aeea23f6039db80c79f209ba76a52c";
    ENTER = "enter.lua", "4bccade7aee7402b0e8a1cd1cc653dedcd140aff";
    REPLACE = "replace.lua", "67a4fa906553751f3f3f391df302a467bc94c54e";
}

#[cfg(test)]
mod tests {
    use sha1::{Digest, Sha1};

    use super::*;

    #[test]
    fn digests_are_those_of_the_texts() {
        for (file, script) in ALL {
            let digest: String = Sha1::digest(script.text).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(script.digest, digest, "{file}");
        }
    }
}
