//! The pieces that a message is made of, one by one: timed by criterion, or counted in instructions.
//!
//! Times show the effect of a change on a quiet machine. Instruction counts are the same on a busy one, so a gate can
//! use them.

use std::io::Write as _;
use std::process::ExitCode;

use criterion::Criterion;

mod counts;
mod pieces;

use pieces::PIECES;

/// Anything that stops a run.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// As in the server: much of a message's cost is memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    let outcome = match words[..] {
        ["counts", "check"] => counts::check(),
        ["counts", "write"] => counts::write(),
        ["piece", name, times] => repeat(name, times),
        _ => time(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed, the exit code still reports the failure.
            let _ = writeln!(std::io::stderr(), "micro: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Times every piece whose name the command line selects.
fn time() -> Result<(), Error> {
    let mut criterion = Criterion::default().configure_from_args();
    for piece in &PIECES {
        let mut once = (piece.prepare)()?;
        criterion.bench_function(piece.name, |bencher| bencher.iter(&mut once));
    }
    criterion.final_summary();
    Ok(())
}

/// Runs one piece so many times and nothing else, for a count from outside.
fn repeat(name: &str, times: &str) -> Result<(), Error> {
    let piece = PIECES.iter().find(|piece| piece.name == name).ok_or_else(|| format!("there is no piece {name}"))?;
    let times: u32 = times.parse()?;
    let mut once = (piece.prepare)()?;
    (0..times).for_each(|_| once());
    Ok(())
}

/// Prints a line of the program's output.
fn say(line: &str) -> Result<(), Error> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
