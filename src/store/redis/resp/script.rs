//! What must happen on a server in one step: each script on one key, so that it runs in a cluster too.
//!
//! The numbers in them are the places of fields in a record, counted from 1. The tests of `record` hold them together.

pub struct Script {
    pub text: &'static str,
    /// The SHA-1 of the text, by which a server that has seen it knows it.
    pub digest: &'static str,
}

macro_rules! scripts {
    ($($name:ident = $file:literal, $digest:literal;)*) => {
        $(pub static $name: Script =
            Script { text: include_str!(concat!("scripts/", $file)), digest: $digest };)*

        #[cfg(test)]
        const ALL: &[(&str, &Script)] = &[$(($file, &$name)),*];
    };
}

scripts! {
    CREATE = "create.lua", "f4cbc3e0b0e4a520b2766545925a5cb9ef7e1126";
    UPDATE = "update.lua", "0d4af409e5f6d9efd44279b822ef50500f3b7218";
    TOUCH = "touch.lua", "55142a955d289efd34943687d33848e5e8437afd";
    END_OF_USER = "end_of_user.lua", "8adab1007504de4d6a719ccb5190fe90b2a3928c";
    END_EXPIRED = "end_expired.lua", "25a08eb0a094638550dc6fb0a2d9f30fad3ce54b";
    FORGET = "forget.lua", "a410d8c724aeea23f6039db80c79f209ba76a52c";
    ENTER = "enter.lua", "b00ab419a2feeedfa50583143705b8878e8d6824";
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
