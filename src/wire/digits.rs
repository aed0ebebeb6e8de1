//! Numbers written in digits.

/// The number that a text of digits alone writes: `str::parse` would accept a sign too. A number that overflows counts
/// as the largest one; a caller to whom the difference matters compares.
#[must_use]
pub fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_digits_alone_and_the_largest_stands_for_all_larger() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("99999999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(digits(text), expected, "{text}");
        }
        for text in ["", "+1", "-1", " 1", "1 ", "1.0", "1e3", "0x1", "\u{661}"] {
            assert_eq!(digits(text), None, "{text:?}");
        }
    }
}
