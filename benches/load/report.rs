//! Numbers as lines of a table that can be pasted into a page.

use crate::append::{Case, Target};
use crate::generator::Measured;

/// A run in which the generator needed more of its core than this says more about the generator than the server.
const GENERATOR_LIMIT: f64 = 0.9;
/// Work of others on the machine, in cores, above which a run is noise.
const OTHERS_LIMIT: f64 = 0.1;

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    fn server_micros(&self) -> f64 {
        self.server.as_secs_f64() * 1e6 / self.latencies.len().max(1) as f64
    }

    /// Cores that the generator used.
    fn generator_share(&self) -> f64 {
        self.generator.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// Cores that neither the server nor the generator used, but somebody did.
    fn others_share(&self) -> f64 {
        let others = self.machine.saturating_sub(self.server).saturating_sub(self.generator);
        others.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the answers did not exceed, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        let at = rank.clamp(1, self.latencies.len().max(1)) - 1;
        f64::from(self.latencies.get(at).copied().unwrap_or(0)) / 1e3
    }

    fn errors(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What the columns are.
pub(crate) fn heading(conversations: u32, seconds: u32) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{conversations} conversations, {seconds} s a case, {cores} cores\n\n\
         | target | clients | requests/s | p50 ms | p99 ms | max ms | server CPU µs/message | generator cores | other cores | errors |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
}

/// One case.
pub(crate) fn line(case: &Case) -> String {
    let Case { target, clients, measured } = case;
    let mut line = format!(
        "| {target} | {clients} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} | {:.2} | {} |",
        measured.per_second(),
        measured.quantile(0.5),
        measured.quantile(0.99),
        measured.quantile(1.0),
        measured.server_micros(),
        measured.generator_share(),
        measured.others_share(),
        measured.errors(),
    );
    for (what, times) in &measured.errors {
        line.push_str(&format!("\n  {times} × {what}"));
    }
    if measured.generator_share() > GENERATOR_LIMIT {
        line.push_str("\n  the generator was the limit: the server can do more than this");
    }
    if measured.others_share() > OTHERS_LIMIT {
        line.push_str("\n  the machine had other work: repeat this run");
    }
    line
}

/// Tertulia beside L0, for each number of clients in each round.
pub(crate) fn ratios(cases: &[Case]) -> Vec<String> {
    let of = |target| cases.iter().filter(move |case| case.target == target);
    let pairs = of(Target::L0).zip(of(Target::Tertulia));
    pairs
        .map(|(l0, real)| {
            debug_assert_eq!(l0.clients, real.clients, "the targets take turns within a case");
            format!(
                "\n{} clients: T/L0 throughput {:.2}, T/L0 server CPU per message {:.2}, T/L0 p99 {:.2}",
                real.clients,
                real.measured.per_second() / l0.measured.per_second(),
                real.measured.server_micros() / l0.measured.server_micros(),
                real.measured.quantile(0.99) / l0.measured.quantile(0.99),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_case_is_counted_per_second_per_message_and_by_rank() {
        let measured = Measured {
            elapsed: Duration::from_secs(2),
            latencies: (1..=100).map(|n| n * 1000).collect(),
            errors: BTreeMap::from([("status 503".to_owned(), 2)]),
            server: Duration::from_millis(10),
            generator: Duration::from_secs(1),
            machine: Duration::from_millis(1210),
        };
        let line = line(&Case { target: Target::L0, clients: 64, measured });
        let expected = "| l0 | 64 | 50 | 50.00 | 99.00 | 100.00 | 100.0 | 0.50 | 0.10 | 2 |\n  2 × status 503";
        assert_eq!(line, expected);
    }
}
