//! The requested bytes of a file (RFC 9110, section 14).

use std::ops::Range;

use crate::wire::digits::digits;

/// The meaning of a `Range` header for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// All of it: there is no header, or an ignorable one.
    Full,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Bytes that the file does not have.
    Nothing,
}

/// Reads a header's value for a file of `size` bytes. Several ranges are answered with the whole file, which every
/// client that requests them must accept; so is an unreadable value.
pub(super) fn requested_range(header: Option<&str>, size: u64) -> RequestedRange {
    let Some((unit, ranges)) = header.and_then(|value| value.split_once('=')) else { return RequestedRange::Full };
    if !unit.trim().eq_ignore_ascii_case("bytes") || ranges.contains(',') {
        return RequestedRange::Full;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else { return RequestedRange::Full };
    // A number that overflows is larger than every file.
    match (digits(first), digits(last)) {
        (Some(first), Some(last)) if last < first => RequestedRange::Full,
        (Some(first), last) if last.is_some() || ranges.trim().ends_with('-') => {
            let end = last.unwrap_or(u64::MAX).saturating_add(1).min(size);
            if first < end { RequestedRange::Part(first..end) } else { RequestedRange::Nothing }
        }
        (None, Some(suffix)) if first.is_empty() => match size.saturating_sub(suffix) {
            start if start < size => RequestedRange::Part(start..size),
            _ => RequestedRange::Nothing,
        },
        _ => RequestedRange::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_range_is_understood() {
        for (header, expected) in [
            (None, RequestedRange::Full),
            (Some("bytes=0-0"), RequestedRange::Part(0..1)),
            (Some("bytes=0-9"), RequestedRange::Part(0..10)),
            (Some("bytes=0-99"), RequestedRange::Part(0..10)),
            (Some("BYTES= 3-4 "), RequestedRange::Part(3..5)),
            (Some("bytes=9-"), RequestedRange::Part(9..10)),
            (Some("bytes=0-"), RequestedRange::Part(0..10)),
            (Some("bytes=-1"), RequestedRange::Part(9..10)),
            (Some("bytes=-99999999999999999999999"), RequestedRange::Part(0..10)),
            (Some("bytes=0-99999999999999999999999"), RequestedRange::Part(0..10)),
            (Some("bytes=10-"), RequestedRange::Nothing),
            (Some("bytes=10-20"), RequestedRange::Nothing),
            (Some("bytes=99999999999999999999999-"), RequestedRange::Nothing),
            (Some("bytes=-0"), RequestedRange::Nothing),
            (Some("bytes=5-4"), RequestedRange::Full),
            (Some("bytes=0-1,3-4"), RequestedRange::Full),
            (Some("items=0-1"), RequestedRange::Full),
            (Some("bytes"), RequestedRange::Full),
            (Some("bytes="), RequestedRange::Full),
            (Some("bytes=-"), RequestedRange::Full),
            (Some("bytes=a-b"), RequestedRange::Full),
            (Some("bytes=1-b"), RequestedRange::Full),
            (Some("bytes=+1-2"), RequestedRange::Full),
            (Some("bytes=1"), RequestedRange::Full),
        ] {
            assert_eq!(requested_range(header, 10), expected, "{header:?}");
        }
        assert_eq!(requested_range(Some("bytes=0-"), 0), RequestedRange::Nothing);
        assert_eq!(requested_range(Some("bytes=-5"), 0), RequestedRange::Nothing);
    }
}
