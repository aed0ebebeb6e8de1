//! A real server or model to try things with, until it is interrupted or its standard input ends: `cargo run -p bed`
//! prints the address of a CQL server, `cargo run -p bed -- model` the base URL of a small model.

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    // This program is also the keeper, when it starts itself as one.
    if bed::keep() {
        return ExitCode::SUCCESS;
    }
    match std::env::args().nth(1).as_deref() {
        None => bed::server().map_or(ExitCode::FAILURE, |server| hold(&server.nodes().join(","))),
        Some("model") => match bed::Model::start() {
            Ok(model) => hold(model.base_url()),
            Err(why) => fail(&why),
        },
        Some(other) => fail(&format!("{other}: there is a CQL server (no argument), and there is a model")),
    }
}

/// Prints the address, and waits until standard input ends.
fn hold(address: &str) -> ExitCode {
    if io::stdout().write_all(format!("{address}\n").as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    // The input itself is ignored; only its end matters.
    _ = io::copy(&mut io::stdin(), &mut io::sink());
    ExitCode::SUCCESS
}

fn fail(why: &str) -> ExitCode {
    _ = io::stderr().write_all(format!("{why}\n").as_bytes());
    ExitCode::FAILURE
}
