//! The result of a run, and whether it says anything about the server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Error;
use crate::proc_stat::{self, Kernel};
use crate::server::Server;
use crate::stored::Stored;

/// Above this share of its core, the generator rather than the server limits a run.
const GENERATOR_LIMIT: f64 = 0.9;
/// CPU use of other programs on the machine, in cores, above which a run is noise.
const OTHERS_LIMIT: f64 = 0.1;

/// Latencies in microseconds, to three digits.
pub(crate) type Latencies = Histogram<u64>;

/// The answers that one client, or all clients, got. It counts only what ended within the measured time.
pub(crate) struct Tally {
    /// One latency for each 2xx answer.
    pub(crate) latencies: Latencies,
    /// All other outcomes, by description.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { latencies: Latencies::new(3)?, errors: BTreeMap::new() })
    }

    /// Counts the outcome of a request.
    pub(crate) fn count(&mut self, outcome: &std::io::Result<u16>, took: Duration) {
        match outcome {
            Ok(200..=299) => note(&mut self.latencies, took),
            Ok(status) => self.failed(format!("status {status}")),
            Err(error) => self.failed(error.to_string()),
        }
    }

    pub(crate) fn failed(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) -> Result<(), Error> {
        self.latencies.add(other.latencies)?;
        for (what, times) in other.errors {
            *self.errors.entry(what).or_default() += times;
        }
        Ok(())
    }
}

/// Adds a latency to a histogram, which grows as needed.
pub(crate) fn note(latencies: &mut Latencies, took: Duration) {
    // Fails only where a histogram would not fit into memory.
    let _ = latencies.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

/// The clocks at one moment.
pub(crate) struct Times {
    pub(crate) at: Instant,
    server: Duration,
    /// Whether the kernel's write-back is the server's doing.
    syncs: bool,
    generator: Duration,
    machine: Duration,
    kernel: Kernel,
}

impl Times {
    /// The clocks now.
    pub(crate) fn now(server: &Server) -> Result<Self, Error> {
        Self::with(server.cpu()?, server.syncs)
    }

    /// The same where only this program is measured, beside servers of others.
    pub(crate) fn alone() -> Result<Self, Error> {
        Self::with(Duration::ZERO, true)
    }

    fn with(server: Duration, syncs: bool) -> Result<Self, Error> {
        Ok(Self {
            server,
            syncs,
            generator: proc_stat::process(std::process::id())?,
            machine: proc_stat::machine()?,
            kernel: Kernel::now()?,
            at: Instant::now(),
        })
    }
}

/// The result of one case.
pub(crate) struct Measured {
    /// The time that was actually measured.
    pub(crate) elapsed: Duration,
    /// The answers that the clients got.
    pub(crate) tally: Tally,
    /// CPU time of the server.
    pub(crate) server: Duration,
    /// CPU time of this process.
    pub(crate) generator: Duration,
    /// CPU time of everything on the machine.
    pub(crate) machine: Duration,
    /// CPU time of the kernel's own threads.
    pub(crate) kernel: Duration,
    /// Whether the kernel's write-back is the server's doing, because the server syncs its writes.
    pub(crate) syncs: bool,
    /// What the server made durable, where it reports this.
    pub(crate) stored: Stored,
}

impl Measured {
    /// The result between two moments.
    pub(crate) fn between(before: &Times, after: &Times, tally: Tally) -> Self {
        Self {
            elapsed: after.at - before.at,
            tally,
            server: after.server.saturating_sub(before.server),
            generator: after.generator.saturating_sub(before.generator),
            machine: after.machine.saturating_sub(before.machine),
            kernel: after.kernel.since(&before.kernel),
            syncs: after.syncs,
            stored: Stored::default(),
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.tally.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn server_micros(&self) -> f64 {
        self.server.as_secs_f64() * 1e6 / self.tally.latencies.len().max(1) as f64
    }

    /// Commits for each answer; NaN where the server does not report them.
    pub(crate) fn commits_each(&self) -> f64 {
        let answers = if self.stored.batches > 0.0 { self.tally.latencies.len() as f64 } else { f64::NAN };
        self.stored.commits / answers
    }

    /// The average number of commits that became durable together; NaN where the server does not report it.
    pub(crate) fn commits_a_sync(&self) -> f64 {
        self.stored.commits / self.stored.batches
    }

    /// Cores that the generator used.
    pub(crate) fn generator_share(&self) -> f64 {
        self.generator.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// Cores that the kernel's own threads used.
    pub(crate) fn kernel_share(&self) -> f64 {
        self.kernel.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// Cores used by anything but the server and the generator. The kernel's threads do not count where they write back
    /// what the server syncs.
    pub(crate) fn others_share(&self) -> f64 {
        let kernel = if self.syncs { self.kernel } else { Duration::ZERO };
        let others = self.machine.saturating_sub(self.server).saturating_sub(self.generator).saturating_sub(kernel);
        others.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the answers did not exceed, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        self.tally.latencies.value_at_quantile(share) as f64 / 1e3
    }

    pub(crate) fn errors(&self) -> u64 {
        self.tally.errors.values().sum()
    }

    /// Why a case has no figures: the generator was the bottleneck, so they would be the generator's own. Every run
    /// checks this.
    pub(crate) fn refused(&self) -> Option<String> {
        let share = self.generator_share();
        (share > GENERATOR_LIMIT)
            .then(|| format!("the generator was the limit ({share:.2} cores): the server can do more than this"))
    }

    /// Whether other work on the machine took so much that the figures are noise.
    pub(crate) fn was_disturbed(&self) -> bool {
        self.others_share() > OTHERS_LIMIT
    }

    /// Whether the figures say anything about the server: it had the machine, and all its answers were as expected.
    pub(crate) fn tells(&self) -> bool {
        self.refused().is_none() && !self.was_disturbed() && self.errors() == 0
    }

    /// The failures, each on a line of its own.
    pub(crate) fn failures(&self) -> String {
        let errors = self.tally.errors.iter();
        let mut failures: String = errors.map(|(what, times)| format!("\n  {times} × {what}")).collect();
        if !failures.is_empty() {
            failures += "\n  not counted: requests failed";
        }
        failures
    }

    /// The remarks below a run's line of a table, each on a line of its own: why the run counts in no ratio.
    pub(crate) fn remarks(&self) -> String {
        let mut remarks = self.failures();
        if self.was_disturbed() {
            remarks += "\n  not counted: the machine had other work; repeat this run";
        }
        remarks
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run of two seconds with 100 answers, after 1 to 100 ms.
    pub(crate) fn measured() -> Measured {
        let mut tally = Tally::new().unwrap();
        (1..=100).for_each(|n| tally.count(&Ok(201), Duration::from_millis(n)));
        (0..2).for_each(|_| tally.count(&Ok(503), Duration::ZERO));
        Measured {
            elapsed: Duration::from_secs(2),
            tally,
            server: Duration::from_millis(10),
            generator: Duration::from_secs(1),
            machine: Duration::from_millis(1290),
            kernel: Duration::from_millis(80),
            syncs: true,
            stored: Stored { commits: 120.0, batches: 8.0 },
        }
    }

    #[test]
    fn a_run_whose_generator_had_no_time_left_is_not_the_servers() {
        assert_eq!(measured().refused(), None);
        assert!(Measured { generator: Duration::from_millis(1_850), ..measured() }.refused().is_some());
    }

    #[test]
    fn a_run_with_failures_or_other_load_yields_no_ratio() {
        let whole = || Measured { tally: Tally::new().unwrap(), machine: Duration::from_millis(1_090), ..measured() };
        assert!(whole().tells());
        assert!(!Measured { tally: measured().tally, ..whole() }.tells());
        assert!(!Measured { machine: Duration::from_millis(1_310), ..whole() }.tells());
        assert!(!Measured { generator: Duration::from_millis(1_850), ..whole() }.tells());
    }

    #[test]
    fn kernel_writes_are_others_work_only_where_the_server_syncs_nothing() {
        let busy = |syncs| Measured {
            tally: Tally::new().unwrap(),
            machine: Duration::from_millis(1_310),
            kernel: Duration::from_millis(300),
            syncs,
            ..measured()
        };
        assert!(busy(true).tells());
        assert!(!busy(false).tells());
        assert_eq!(busy(true).kernel_share(), 0.15);
    }
}
