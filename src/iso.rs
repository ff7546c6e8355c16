//! Reads and writes the exact text of `Date.prototype.toISOString()`, without calling JavaScript.

use crate::clock::Millis;

/// JavaScript dates range from minus to plus this many milliseconds from the epoch (ECMA-262, "Time Values and Time
/// Range").
pub const MAX_MILLIS: Millis = 8_640_000_000_000_000;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// Reads `YYYY-MM-DDTHH:mm:ss.sssZ`. Returns `None` for any other form, and for a date that does not exist.
pub fn parse(text: &[u8]) -> Option<Millis> {
    let text: &[u8; 24] = text.try_into().ok()?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
    if separators.iter().any(|&(at, separator)| text[at] != separator) {
        return None;
    }
    let year = digits(&text[0..4])?;
    let (month, day) = (digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute) = (digits(&text[11..13])?, digits(&text[14..16])?);
    let (second, milli) = (digits(&text[17..19])?, digits(&text[20..23])?);
    let exists = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    exists.then(|| {
        let time = ((hour * 60 + minute) * 60 + second) * 1000 + milli;
        days_from_civil(year, month, day) * MILLIS_PER_DAY + time
    })
}

/// Appends the text of `new Date(millis).toISOString()`: 24 characters, or 27 outside the years 0 to 9999.
pub fn write(millis: Millis, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(millis.div_euclid(MILLIS_PER_DAY));
    let time = millis.rem_euclid(MILLIS_PER_DAY) as u32;
    let (minutes, milli) = (time / 60_000, time % 1000);
    if !(0..=9999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
        out.extend(two_digits(year.unsigned_abs() as u32 / 10_000));
    }
    // Write directly to the destination: copying bytes that were just written stalls the processor.
    let start = out.len();
    out.extend_from_slice(b"0000-00-00T00:00:00.000Z");
    let year = year.unsigned_abs() as u32 % 10_000;
    let pairs = [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, minutes / 60),
        (14, minutes % 60),
        (17, time / 1000 % 60),
        (20, milli / 10),
    ];
    for (at, number) in pairs {
        out[start + at..start + at + 2].copy_from_slice(&two_digits(number));
    }
    out[start + 22] = b'0' + (milli % 10) as u8;
}

/// The digits of a number below 100.
fn two_digits(number: u32) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter()
        .try_fold(0, |number, &digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Both functions use years that start in March, so that the leap day is the last day. They use eras of 400 years (146
// 097 days), after which the Gregorian calendar repeats. 719 468 is the number of days from 0000-03-01 to the epoch.

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The algorithm of Neri and Schneider (https://doi.org/10.1002/spe.3172) on unsigned numbers. It is fast, because
/// every `get` writes a date.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // Adding this many eras makes all JavaScript dates positive.
    const ERAS: i64 = 700;
    let days = (days + 719_468 + ERAS * 146_097) as u32;
    let (century, day_of_century) = ((4 * days + 3) / 146_097, (4 * days + 3) % 146_097 / 4);
    let product = 2_939_745 * u64::from(4 * day_of_century + 3);
    let (year_of_century, day_of_year) = ((product >> 32) as u32, product as u32 / 2_939_745 / 4);
    let month_and_day = 2141 * day_of_year + 197_913;
    let (month, day) = (month_and_day >> 16, month_and_day % (1 << 16) / 2141 + 1);
    let is_next_year = day_of_year >= 306;
    let year = i64::from(100 * century + year_of_century + u32::from(is_next_year)) - ERAS * 400;
    (year, if is_next_year { month - 12 } else { month }, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(millis: Millis) -> String {
        let mut out = Vec::new();
        write(millis, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_the_same_text_as_javascript() {
        // Each pair was printed by `new Date(ms).toISOString()` in Node 20.
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_772_323_199_999, "2026-02-28T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
            (MAX_MILLIS, "+275760-09-13T00:00:00.000Z"),
            (-MAX_MILLIS, "-271821-04-20T00:00:00.000Z"),
        ] {
            assert_eq!(text(millis), expected);
        }
    }

    #[test]
    fn reads_only_existing_dates_in_the_one_form() {
        for no_date in [
            "",
            "soon",
            "2026-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-00-10T00:00:00.000Z",
            "2026-04-31T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T00:60:00.000Z",
            "2026-01-01T00:00:60.000Z",
            "2026-01-01T00:00:00.000+",
            "2026-01-01 00:00:00.000Z",
            "+26-01-01T00:00:00.000Z0",
            "2026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(no_date.as_bytes()), None, "{no_date}");
        }
        assert_eq!(parse(b"2024-02-29T00:00:00.000Z"), Some(1_709_164_800_000));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(millis in -62_167_219_200_000..=253_402_300_799_999_i64) {
            prop_assert_eq!(parse(text(millis).as_bytes()), Some(millis));
        }

        #[test]
        fn writes_later_dates_of_four_digit_years_as_greater_texts(
            one in -62_167_219_200_000..=253_402_300_799_999_i64,
            other in -62_167_219_200_000..=253_402_300_799_999_i64,
        ) {
            prop_assert_eq!(one.cmp(&other), text(one).cmp(&text(other)));
        }
    }
}
