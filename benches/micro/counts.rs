//! Instructions of each piece, counted by valgrind, and their bounds.
//!
//! Two processes run a piece, one of them so many times more often; the difference of their counts is the cost of one
//! time, without the start. Other work on the machine does not change it. Another compiler may, by a few percent, and
//! so may a processor with other instructions: both are named when a count exceeds its bound.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde::Deserialize;

use crate::pieces::PIECES;
use crate::{Error, say};

/// The bounds, beside this file.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.toml");
/// Times that both processes run a piece, so that lazy work is done by then.
const FIRST: u32 = 300;
/// Additional times that one of them runs it.
const MORE: u32 = 1_000;
/// A count that is so many percent below its bound makes the bound worthless.
const FAR_BELOW: f64 = 10.0;

/// The bounds.
#[derive(Deserialize)]
struct Bounds {
    /// Percent by which a count may exceed its bound.
    tolerance: f64,
    /// The compiler that the bounds were counted with.
    compiler: String,
    /// Instructions of one time, by piece.
    instructions: BTreeMap<String, u64>,
}

/// Counts every piece and fails where one exceeds its bound. A lower count is never a failure, and a piece without a
/// bound is only named.
pub(crate) fn check() -> Result<(), Error> {
    let bounds: Bounds = toml::from_str(&fs::read_to_string(FILE)?)?;
    say("| piece | instructions | written | off |\n|---|---:|---:|---:|")?;
    let mut above = Vec::new();
    let mut below = Vec::new();
    let mut unbound = Vec::new();
    for piece in &PIECES {
        let counted = count(piece.name)?;
        let Some(written) = bounds.instructions.get(piece.name) else {
            say(&format!("| {} | {counted} | none | |", piece.name))?;
            unbound.push(piece.name);
            continue;
        };
        let off = (counted as f64 / *written as f64 - 1.0) * 100.0;
        say(&format!("| {} | {counted} | {written} | {off:+.1} % |", piece.name))?;
        if off > bounds.tolerance {
            above.push(format!("{} by {off:.1} % ({} instructions)", piece.name, counted - written));
        } else if off < -FAR_BELOW {
            below.push(format!("{} by {:.1} %", piece.name, -off));
        }
    }
    if !below.is_empty() {
        say(&format!("\nfar below what is written: {}; write the counts anew, so that it stays", below.join(", ")))?;
    }
    if !unbound.is_empty() {
        say(&format!("\nwithout a bound: {}; write the counts", unbound.join(", ")))?;
    }
    if above.is_empty() {
        return Ok(());
    }
    let here = compiler()?;
    let other = if here == bounds.compiler {
        String::new()
    } else {
        format!("\nThe counts were written with {}, this is {here}.", bounds.compiler)
    };
    Err(format!(
        "more than {} % above what is written: {}.{other}\nWhat calls what is in {}; callgrind_annotate shows it. \
         Where it is worth that, write the counts anew (benches/README.md says how).",
        bounds.tolerance,
        above.join(", "),
        profiles().display()
    )
    .into())
}

/// The tolerance in percent where the file has none: runs of the same code differ by some tenths, machines by more.
const TOLERANCE: f64 = 5.0;

/// Counts every piece and writes the file.
pub(crate) fn write() -> Result<(), Error> {
    let tolerance = fs::read_to_string(FILE).ok().and_then(|text| toml::from_str::<Bounds>(&text).ok());
    let tolerance = tolerance.map_or(TOLERANCE, |bounds| bounds.tolerance);
    let mut text = format!(
        "# Instructions of one time of each piece, as `counts write` counted them: see benches/README.md.\n\n\
         # Percent that a count may lie above.\n\
         tolerance = {tolerance:?}\n\
         # Another compiler counts a little otherwise.\n\
         compiler = {:?}\n\n[instructions]\n",
        compiler()?
    );
    for piece in &PIECES {
        let counted = count(piece.name)?;
        say(&format!("{} {counted}", piece.name))?;
        writeln!(text, "{:?} = {counted}", piece.name)?;
    }
    // A file that `check` cannot read never replaces one that it can.
    toml::from_str::<Bounds>(&text)?;
    Ok(fs::write(FILE, text)?)
}

/// Instructions of running a piece once.
fn count(piece: &str) -> Result<u64, Error> {
    let dir = profiles();
    fs::create_dir_all(&dir)?;
    let run = |times: u32, suffix: &str| total(piece, times, &dir.join(format!("{piece}{suffix}.callgrind")));
    let (few, many) = thread::scope(|scope| {
        let few = scope.spawn(|| run(FIRST, ".few"));
        let many = run(FIRST + MORE, "");
        (few.join(), many)
    });
    let few = few.map_err(|_| "a thread of the count panicked")??;
    Ok(many?.saturating_sub(few) / u64::from(MORE))
}

/// Instructions of a process that runs a piece so many times, in all of its threads.
fn total(piece: &str, times: u32, profile: &Path) -> Result<u64, Error> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(std::env::current_exe()?).args(["piece", piece, &times.to_string()]);
    let ended = command.stdin(Stdio::null()).output().map_err(|error| format!("valgrind does not run: {error}"))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(format!("{piece} failed under valgrind: {}\n{said}", ended.status).into());
    }
    let text = fs::read_to_string(profile)?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.ok_or_else(|| format!("{} names no total", profile.display()).into())
}

/// The directory of valgrind's profiles.
fn profiles() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("counts")
}

/// The compiler, as it names itself.
fn compiler() -> Result<String, Error> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(String::from_utf8(Command::new(rustc).arg("--version").output()?.stdout)?.trim().to_owned())
}
