//! The requested bytes of a file (RFC 9110, section 14).

use std::ops::Range;

/// The meaning of a `Range` header for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: there is no header, or an ignorable one.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Bytes that the file does not have.
    Nothing,
}

/// Reads a header's value for a file of `size` bytes. Several ranges are answered with the whole file, which every
/// client that requests them must accept; so is an unreadable value.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((unit, ranges)) = header.and_then(|value| value.split_once('=')) else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || ranges.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else { return Wanted::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that overflows is larger than every file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if last < first => Wanted::Whole,
        (Some(first), last) if last.is_some() || ranges.trim().ends_with('-') => {
            let end = last.unwrap_or(u64::MAX).saturating_add(1).min(size);
            if first < end { Wanted::Part(first..end) } else { Wanted::Nothing }
        }
        (None, Some(suffix)) if first.is_empty() => match size.saturating_sub(suffix) {
            start if start < size => Wanted::Part(start..size),
            _ => Wanted::Nothing,
        },
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_range_is_understood() {
        for (header, expected) in [
            (None, Wanted::Whole),
            (Some("bytes=0-0"), Wanted::Part(0..1)),
            (Some("bytes=0-9"), Wanted::Part(0..10)),
            (Some("bytes=0-99"), Wanted::Part(0..10)),
            (Some("BYTES= 3-4 "), Wanted::Part(3..5)),
            (Some("bytes=9-"), Wanted::Part(9..10)),
            (Some("bytes=0-"), Wanted::Part(0..10)),
            (Some("bytes=-1"), Wanted::Part(9..10)),
            (Some("bytes=-99999999999999999999999"), Wanted::Part(0..10)),
            (Some("bytes=0-99999999999999999999999"), Wanted::Part(0..10)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=10-20"), Wanted::Nothing),
            (Some("bytes=99999999999999999999999-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=5-4"), Wanted::Whole),
            (Some("bytes=0-1,3-4"), Wanted::Whole),
            (Some("items=0-1"), Wanted::Whole),
            (Some("bytes"), Wanted::Whole),
            (Some("bytes="), Wanted::Whole),
            (Some("bytes=-"), Wanted::Whole),
            (Some("bytes=a-b"), Wanted::Whole),
            (Some("bytes=1-b"), Wanted::Whole),
            (Some("bytes=+1-2"), Wanted::Whole),
            (Some("bytes=1"), Wanted::Whole),
        ] {
            assert_eq!(wanted(header, 10), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
        assert_eq!(wanted(Some("bytes=-5"), 0), Wanted::Nothing);
    }
}
