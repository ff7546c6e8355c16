//! Decodes lower-case hexadecimal digits, sixteen at a time.

const DIGITS: usize = 16;

/// Decodes two digits to each byte of `out`, which is half as long as `text`. Returns whether all characters are
/// digits.
#[inline]
pub fn decode(text: &[u8], out: &mut [u8]) -> bool {
    for (sixteen, eight) in text.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        let Some(bytes) = decode_sixteen(*sixteen) else { return false };
        *eight = bytes;
    }
    if text.len().is_multiple_of(DIGITS) {
        return true;
    }
    // Decode the last sixteen digits, some of them for the second time. Shorter texts are padded with zeros.
    let mut last = [b'0'; DIGITS];
    let from = text.len().saturating_sub(DIGITS);
    last[DIGITS - (text.len() - from)..].copy_from_slice(&text[from..]);
    let Some(bytes) = decode_sixteen(last) else { return false };
    let from = out.len().saturating_sub(DIGITS / 2);
    let missing = DIGITS / 2 - (out.len() - from);
    out[from..].copy_from_slice(&bytes[missing..]);
    true
}

#[cfg(not(target_arch = "x86_64"))]
use decode_in_integer as decode_sixteen;
#[cfg(target_arch = "x86_64")]
use decode_in_vector as decode_sixteen;

/// Returns `None` for any other character.
#[cfg(target_arch = "x86_64")]
#[inline]
fn decode_in_vector(text: [u8; DIGITS]) -> Option<[u8; DIGITS / 2]> {
    use std::arch::x86_64::{
        _mm_add_epi8, _mm_and_si128, _mm_cmpeq_epi8, _mm_cvtsi128_si64, _mm_min_epu8, _mm_movemask_epi8,
        _mm_or_si128, _mm_packus_epi16, _mm_set_epi64x, _mm_set1_epi8, _mm_set1_epi16, _mm_slli_epi16,
        _mm_srli_epi16, _mm_sub_epi8,
    };
    let text = u128::from_le_bytes(text);
    // SAFETY: each x86-64 processor has SSE2.
    unsafe {
        let text = _mm_set_epi64x((text >> 64) as i64, text as i64);
        // A character below the range wraps to a large number.
        let digit = _mm_sub_epi8(text, _mm_set1_epi8(b'0' as i8));
        let letter = _mm_sub_epi8(text, _mm_set1_epi8(b'a' as i8));
        let is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
        let is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(5)), letter);
        if _mm_movemask_epi8(_mm_or_si128(is_digit, is_letter)) != 0xffff {
            return None;
        }
        let letter = _mm_and_si128(_mm_add_epi8(letter, _mm_set1_epi8(10)), is_letter);
        let values = _mm_or_si128(_mm_and_si128(digit, is_digit), letter);
        // The first digit of two is the high one. Then drop every other byte.
        let pairs = _mm_or_si128(_mm_slli_epi16(values, 4), _mm_srli_epi16(values, 8));
        let bytes = _mm_and_si128(pairs, _mm_set1_epi16(0xff));
        Some(_mm_cvtsi128_si64(_mm_packus_epi16(bytes, bytes)).to_le_bytes())
    }
}

/// The same for any processor.
#[cfg(any(not(target_arch = "x86_64"), test))]
#[inline]
fn decode_in_integer(text: [u8; DIGITS]) -> Option<[u8; DIGITS / 2]> {
    const ONES: u128 = u128::from_le_bytes([1; DIGITS]);
    let text = u128::from_le_bytes(text);
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
    // The first digit of two is the high one. Then take every other byte.
    let bytes = (values << 4 | values >> 8).to_le_bytes();
    Some(std::array::from_fn(|at| bytes[2 * at]))
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
        for at in 0..36 {
            for byte in 0..=u8::MAX {
                let mut text = *b"0123456789abcdef90af0123456789abcdef";
                text[at] = byte;
                assert_eq!(decoded(&text), expected(&text), "{byte} at {at}");
            }
        }
    }

    #[test]
    fn the_code_for_any_processor_checks_each_byte_at_each_position() {
        for at in 0..DIGITS {
            for byte in 0..=u8::MAX {
                let mut text = *b"0123456789abcdef";
                text[at] = byte;
                let decoded = decode_in_integer(text).map(|bytes| bytes.to_vec());
                assert_eq!(decoded, expected(&text), "{byte} at {at}");
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
