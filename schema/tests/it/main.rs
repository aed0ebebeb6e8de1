//! The stores, tested from outside.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

mod cql;
mod embedded;

bed::keeper!();
