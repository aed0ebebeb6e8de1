//! A CQL server to try things with: `cargo run -p bed` prints its address and holds it until it is interrupted or its
//! standard input ends.

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    // The same program is the keeper, when it starts itself as one.
    if bed::keep() {
        return ExitCode::SUCCESS;
    }
    let Some(server) = bed::server() else { return ExitCode::FAILURE };
    let line = format!("{}\n", server.nodes().join(","));
    if io::stdout().write_all(line.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    // Whatever comes is of no interest; that it ends is.
    _ = io::copy(&mut io::stdin(), &mut io::sink());
    ExitCode::SUCCESS
}
