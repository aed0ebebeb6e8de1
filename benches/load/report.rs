//! Results as lines of a table that can be pasted into a page.

use std::process::Command;

use crate::measured::Measured;
use crate::open_loop::Opened;

/// The columns of a closed loop.
pub(crate) const CLOSED: &str = "\
| target | scenario | clients | requests/s | p50 ms | p99 ms | max ms | server CPU µs | commits | a sync | generator cores | kernel cores | other cores | errors |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

/// The columns of an open loop.
pub(crate) const OPEN: &str = "\
| target | scenario | due/s | answered/s | p50 ms | p99 ms | p99.9 ms | max ms | sent late p99 ms | server CPU µs | generator cores | kernel cores | other cores | errors | unanswered |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

/// A closed loop's case; without figures where the generator was the limit.
pub(crate) fn closed(target: &str, scenario: &str, clients: u32, measured: &Measured) -> String {
    let head = format!("| {target} | {scenario} | {clients} |");
    if let Some(refused) = refused(measured, 11) {
        return head + &refused;
    }
    format!(
        "{head} {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} | {:.2} | {:.2} | {:.2} | {} |{}",
        measured.per_second(),
        measured.quantile(0.5),
        measured.quantile(0.99),
        measured.quantile(1.0),
        measured.server_micros(),
        told(measured.commits_each()),
        told(measured.commits_a_sync()),
        measured.generator_share(),
        measured.kernel_share(),
        measured.others_share(),
        measured.errors(),
        measured.remarks(),
    )
}

/// An open loop's case.
pub(crate) fn open(target: &str, scenario: &str, opened: &Opened) -> String {
    let Opened { measured, late, due, unanswered } = opened;
    let head = format!("| {target} | {scenario} | {:.0} |", *due as f64 / measured.elapsed.as_secs_f64());
    if let Some(refused) = refused(measured, 12) {
        return head + &refused;
    }
    format!(
        "{head} {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} | {:.2} | {:.2} | {} | {unanswered} |{}",
        measured.per_second(),
        measured.quantile(0.5),
        measured.quantile(0.99),
        measured.quantile(0.999),
        measured.quantile(1.0),
        late.value_at_quantile(0.99) as f64 / 1e3,
        measured.server_micros(),
        measured.generator_share(),
        measured.kernel_share(),
        measured.others_share(),
        measured.errors(),
        measured.remarks(),
    )
}

/// A figure that some servers or cases do not report.
pub(crate) fn told(figure: f64) -> String {
    if figure.is_nan() { "–".to_owned() } else { format!("{figure:.2}") }
}

/// So many columns of a case in which the generator was the limit, and the reason.
pub(crate) fn refused(measured: &Measured, columns: usize) -> Option<String> {
    let why = measured.refused()?;
    Some(format!(" refused |{}\n  {why}{}", " |".repeat(columns - 1), measured.remarks()))
}

/// A number with separators between its thousands.
pub(crate) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The machine and the source, as far as a reader of the figures must know them.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{cores} cores of {model}, Linux {}, source {}", kernel.trim(), source())
}

/// The commit of this program, and whether the tree has further changes; a server that was given may be of another
/// commit.
fn source() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let name = described.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    name.map_or_else(|| "unknown".to_owned(), |name| String::from_utf8_lossy(&name).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measured::tests::measured;

    #[test]
    fn a_case_is_counted_per_second_per_message_and_by_rank() {
        let expected = "| l0 | append | 64 | 50 | 50.02 | 99.01 | 100.03 | 100.0 | 1.20 | 15.00 | 0.50 | 0.04 | 0.10 | 2 |\n  2 × status 503\n  \
                        not counted: requests failed";
        assert_eq!(closed("l0", "append", 64, &measured()), expected);
    }

    #[test]
    fn a_case_limited_by_the_generator_has_no_figures() {
        let busy = Measured { generator: Duration::from_millis(1_850), ..measured() };
        let line = closed("l0", "append", 64, &busy);
        assert!(line.contains("cores): the server can do more"), "{line}");
        assert!(line.starts_with("| l0 | append | 64 | refused | | | | | | | | | | |\n"), "{line}");
    }

    #[test]
    fn thousands_stand_apart() {
        let texts = [7, 100, 1_000, 10_000_000].map(thousands);
        assert_eq!(texts, ["7", "100", "1,000", "10,000,000"]);
    }
}
