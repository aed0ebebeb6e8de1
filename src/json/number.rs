//! Numbers of a body that must be integers.

use serde_json::Value;

/// The largest integer that every JSON reader keeps exactly: 2^53 − 1.
pub const MAX_SAFE: i64 = (1 << 53) - 1;

/// A JSON number where an integer is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integer {
    /// An integer within ±[`MAX_SAFE`].
    Exact(i64),
    /// An integer beyond that.
    Beyond,
    /// A number with a fraction.
    Fraction,
    /// Not a number.
    Other,
}

/// Reads JSON text as an integer; `1.0` and `1e3` are integers too.
#[must_use]
pub fn integer(text: &str) -> Integer {
    if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Integer::Other;
    }
    if let Ok(number) = text.parse::<i64>() {
        return if number.abs_diff(0) <= MAX_SAFE.unsigned_abs() { Integer::Exact(number) } else { Integer::Beyond };
    }
    match text.parse::<f64>() {
        Ok(number) if number.abs() > MAX_SAFE as f64 => Integer::Beyond,
        // Small enough to be exact, so the cast loses nothing.
        Ok(number) if number.fract() == 0.0 => Integer::Exact(number as i64),
        Ok(_) => Integer::Fraction,
        Err(_) => Integer::Other,
    }
}

/// A number read as an integer from 0 to [`MAX_SAFE`]; `2.0` and `1e1` are integers too.
#[must_use]
pub fn whole_number(value: &Value) -> Option<u64> {
    match integer(&value.as_number()?.to_string()) {
        Integer::Exact(number) => u64::try_from(number).ok(),
        Integer::Beyond | Integer::Fraction | Integer::Other => None,
    }
}
