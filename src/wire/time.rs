//! Times in the API's form: RFC 3339.

use actors::clock::Millis;
use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Reads an RFC 3339 date-time as milliseconds since 1970, negative before it. The offset is required, `t` and `z` may
/// be in lower case, digits past the millisecond are dropped, and a leap second, at the end of a day in UTC, is read as
/// the second before it. `None` also for times outside of four-digit years in UTC.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u32> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    };
    let small = |from: usize, max: u32| i8::try_from(number(from, from + 2).filter(|n| *n <= max)?).ok();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| bytes.get(*at).map(u8::to_ascii_uppercase) != Some(*byte)) {
        return None;
    }
    let year = i16::try_from(number(0, 4)?).ok()?;
    let hour = small(11, 23)?;
    let minute = small(14, 59)?;
    let second = small(17, 60)?;
    let fraction = match bytes.get(19)? {
        b'.' => bytes[20..].iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    };
    if bytes[19] == b'.' && fraction == 0 {
        return None;
    }
    let nanos = bytes[19..].iter().skip(1).take(fraction.min(9)).fold(0i32, |n, byte| n * 10 + i32::from(byte - b'0'))
        * 10i32.pow(9 - fraction.min(9) as u32);
    let zone = if fraction == 0 { 19 } else { 20 + fraction };
    let offset = match (bytes.get(zone)?, bytes.len() - zone) {
        (b'Z' | b'z', 1) => 0,
        (sign @ (b'+' | b'-'), 6) if bytes[zone + 3] == b':' => {
            let minutes = i32::from(small(zone + 1, 23)?) * 60 + i32::from(small(zone + 4, 59)?);
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let in_utc = (i32::from(hour) * 60 + i32::from(minute) - offset).rem_euclid(24 * 60);
    if second == 60 && in_utc != 24 * 60 - 1 {
        return None;
    }
    let civil = DateTime::new(year, small(5, 12)?, small(8, 31)?, hour, minute, second.min(59), nanos).ok()?;
    // Rounded down, so that a time before 1970 does not move ahead either.
    let nanos = civil.duration_since(EPOCH).as_nanos() - i128::from(offset) * 60_000_000_000;
    let millis = i64::try_from(nanos.div_euclid(1_000_000)).ok()?;
    let utc = EPOCH.checked_add(SignedDuration::from_millis(millis)).ok()?;
    (0..=9999).contains(&utc.year()).then_some(millis)
}

/// The text of a time in UTC with milliseconds, `2025-01-01T00:00:00.000Z`; always 24 bytes.
#[must_use]
pub fn format(at: Millis) -> Text {
    format_signed(i64::try_from(at.0).unwrap_or(i64::MAX))
}

/// Writes possibly negative milliseconds since 1970 as RFC 3339; a time before the year 0 is written as its beginning.
#[must_use]
pub fn format_signed(millis: i64) -> Text {
    let earliest = DateTime::constant(0, 1, 1, 0, 0, 0, 0);
    let after = EPOCH.checked_add(SignedDuration::from_millis(millis));
    let civil = after.unwrap_or(if millis < 0 { earliest } else { DateTime::MAX }).max(earliest);
    let mut out = *b"0000-00-00T00:00:00.000Z";
    let mut put = |end: usize, digits: usize, number: i16| {
        let mut rest = number.unsigned_abs();
        for slot in out[end - digits..end].iter_mut().rev() {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(4, 4, civil.year());
    put(7, 2, civil.month().into());
    put(10, 2, civil.day().into());
    put(13, 2, civil.hour().into());
    put(16, 2, civil.minute().into());
    put(19, 2, civil.second().into());
    put(23, 3, civil.millisecond());
    Text(out)
}

/// The text of a time, on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text([u8; 24]);

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It contains only ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A time as a member of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Millis);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(format(self.0).as_str())
    }
}

/// A time in a header, in any of the three forms that a recipient must accept (RFC 9110, 5.6.7).
#[must_use]
pub fn http_date(text: &str) -> Option<Timestamp> {
    let usual = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    usual.or_else(|| Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_a_header_is_read_in_each_of_its_three_forms() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(http_date(text).map(Timestamp::as_second), Some(784_111_777), "{text}");
        }
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn times_are_read_to_the_millisecond() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2025-01-01T00:00:00.000Z", 1_735_689_600_000),
            ("2023-11-07T05:31:56Z", 1_699_335_116_000),
            ("2023-11-07t05:31:56z", 1_699_335_116_000),
            ("2023-11-07T05:31:56.1Z", 1_699_335_116_100),
            ("2023-11-07T05:31:56.123999999999Z", 1_699_335_116_123),
            ("2023-11-07T06:31:56+01:00", 1_699_335_116_000),
            ("2023-11-07T00:01:56-05:30", 1_699_335_116_000),
            ("2023-11-07T05:31:56-00:00", 1_699_335_116_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn a_leap_second_ends_a_day_and_a_year_has_four_digits() {
        for text in
            ["2016-12-31T23:59:60Z", "2017-01-01T00:59:60+01:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
        {
            assert!(parse(text).is_some(), "{text}");
        }
        for text in [
            "1990-06-30T12:00:60Z",
            "2016-12-31T23:59:60+01:00",
            "0000-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_date_time_with_an_offset_is_refused() {
        for text in [
            "",
            "x",
            "2025",
            "2025-01-01",
            "2025-01-01T00:00:00",
            "2025-01-01 00:00:00Z",
            "2025-01-01T00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:60:00Z",
            "2025-01-01T00:00:61Z",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00+0100",
            "2025-01-01T00:00:00+24:00",
            "2025-01-01T00:00:00+01:60",
            "2025-01-01T00:00:00ZZ",
            " 2025-01-01T00:00:00Z",
            "2025-01-01T00:00:00Z ",
            "2025-01-01T00:00:00+01:00[Europe/Paris]",
            "+002025-01-01T00:00:00Z",
            "2025-1-1T0:0:0Z",
            "1735689600",
            "2025-01-01T00:00:00.12",
            "2025-01-01T00:00:00é",
            "２025-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_is_read() {
        for text in ["1970-01-01T00:00:00.000Z", "2025-01-01T00:00:00.007Z", "2024-02-29T23:59:59.999Z"] {
            let millis = Millis(u64::try_from(parse(text).unwrap()).unwrap());
            assert_eq!(format(millis).as_str(), text);
        }
        assert_eq!(format(Millis(u64::MAX)).as_str(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_time_before_1970_is_written_as_it_is_read() {
        for text in ["1969-12-31T23:59:59.999Z", "1969-07-20T20:17:40.000Z", "0001-01-01T00:00:00.000Z"] {
            assert_eq!(format_signed(parse(text).unwrap()).as_str(), text);
        }
        assert_eq!(format_signed(i64::MIN).as_str(), "0000-01-01T00:00:00.000Z");
    }
}
