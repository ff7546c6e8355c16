//! Decodes lower-case hexadecimal digits, eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const DIGITS: usize = size_of::<u64>();

/// Decodes two digits to each byte of `out`, which is half as long as `text`. Returns whether all characters are
/// digits.
#[inline]
pub fn decode(text: &[u8], out: &mut [u8]) -> bool {
    for (eight, four) in text.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        let Some(bytes) = decode_eight(*eight) else { return false };
        *four = bytes;
    }
    if text.len().is_multiple_of(DIGITS) {
        return true;
    }
    // Decode the last eight digits, some of them for the second time. Shorter texts are padded with zeros.
    let mut last = [b'0'; DIGITS];
    let from = text.len().saturating_sub(DIGITS);
    last[DIGITS - (text.len() - from)..].copy_from_slice(&text[from..]);
    let Some(bytes) = decode_eight(last) else { return false };
    let from = out.len().saturating_sub(DIGITS / 2);
    let missing = DIGITS / 2 - (out.len() - from);
    out[from..].copy_from_slice(&bytes[missing..]);
    true
}

/// Returns `None` for any other character.
#[inline]
fn decode_eight(text: [u8; DIGITS]) -> Option<[u8; DIGITS / 2]> {
    let text = u64::from_le_bytes(text);
    // Digits are 0x30 to 0x39, letters 0x61 to 0x66. No sum carries into the next byte.
    let low = text & (0x0f * ONES);
    let letter = (text >> 6) & ONES;
    let values = low + 9 * letter;
    // A letter has a value of ten or more, a digit less: adding six sets bit 4 for letters only. No valid value has bit
    // 4 set.
    let wrong_value = ((values + 6 * ONES) ^ (letter << 4) | values) & (0x10 * ONES);
    let wrong_kind = (text ^ low) ^ (0x30 * ONES + 0x30 * letter);
    if wrong_value | wrong_kind != 0 {
        return None;
    }
    // The first digit of two is the high one. Then drop every other byte.
    let bytes = (values << 4 | values >> 8) & 0x00ff_00ff_00ff_00ff;
    let bytes = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    Some(((bytes | bytes >> 16) as u32).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The expected result of `decode`, one character at a time.
    fn expected(text: &[u8]) -> Option<Vec<u8>> {
        let value = |byte: &u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        text.chunks(2).map(|pair| Some(value(&pair[0])? << 4 | value(&pair[1])?)).collect()
    }

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; text.len() / 2];
        decode(text, &mut out).then_some(out)
    }

    #[test]
    fn each_byte_is_checked_at_each_position() {
        for at in 0..20 {
            for byte in 0..=u8::MAX {
                let mut text = *b"0123456789abcdef90af";
                text[at] = byte;
                assert_eq!(decoded(&text), expected(&text), "{byte} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn decodes_any_number_of_digits(text in "([0-9a-f]{2}){0,64}") {
            prop_assert_eq!(decoded(text.as_bytes()), expected(text.as_bytes()));
        }
    }
}
