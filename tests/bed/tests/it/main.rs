//! The life cycle of a server, with stand-ins for Java and Docker that only accept connections.
#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what it is for")]

mod life;
mod standin;

bed::keeper!();
