//! Settings of long tests, and the output of those tests.

use actors::clock::{Clock as _, SystemClock};

use super::Kind;

/// Shown only if the test fails.
#[expect(clippy::print_stderr, reason = "the seed and the round are what a failure is repeated with")]
pub(crate) fn say(words: &str) {
    eprintln!("{words}");
}

/// The number in an environment variable, or `default`.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The same, with another default for a CQL server on the same machine.
pub(crate) fn setting_by_store(name: &str, default: u64, on_cql: u64) -> u64 {
    setting(name, if Kind::chosen() == Kind::Cql { on_cql } else { default })
}

/// The machine's time, which the program uses too.
pub(crate) fn now() -> u64 {
    SystemClock.now().0
}
