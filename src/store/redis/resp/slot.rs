//! The cluster slot of a key.

/// The number of slots in a cluster.
pub const SLOTS: usize = 16_384;

/// The slot of a key: the checksum of its hash tag, the text in the first braces. Without a hash tag, the whole key
/// counts.
pub fn slot_of(key: &[u8]) -> u16 {
    let position = |bytes: &[u8], wanted: u8| bytes.iter().position(|&byte| byte == wanted);
    let tag = position(key, b'{').and_then(|open| {
        let rest = &key[open + 1..];
        position(rest, b'}').filter(|&len| len > 0).map(|len| &rest[..len])
    });
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let (mut crc, mut bit) = ((at as u16) << 8, 0);
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_match_cluster_keyslot() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // These are the results of `CLUSTER KEYSLOT`.
        assert_eq!(slot_of(b"somekey"), 11058);
        assert_eq!(slot_of(b"foo{hash_tag}"), 2515);
        assert_eq!(slot_of(b"{hash_tag}bar"), 2515);
        assert_eq!(slot_of(b"{}somekey"), crc16(b"{}somekey") % 16_384);
        assert_eq!(slot_of(b"{somekey"), crc16(b"{somekey") % 16_384);
    }
}
