//! What whoever runs a long test may choose, and what the test tells about it.

use actors::clock::{Clock as _, SystemClock};

use super::Kind;

/// Told only where the test fails.
#[expect(clippy::print_stderr, reason = "the seed and the round are what a failure is repeated with")]
pub(crate) fn say(words: &str) {
    eprintln!("{words}");
}

/// A number that an environment variable says, else `default`.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The same, with another default where a CQL server on the same machine does the work.
pub(crate) fn setting_by_store(name: &str, default: u64, on_cql: u64) -> u64 {
    setting(name, if Kind::chosen() == Kind::Cql { on_cql } else { default })
}

/// The time of the machine, which is the program's too.
pub(crate) fn now() -> u64 {
    SystemClock.now().0
}
