//! The goals, and how far each of them is reached.

use std::fmt;
use std::time::Duration;

use crate::append;
use crate::limits::{self, Limit};
use crate::measured::Measured;
use crate::memory;
use crate::open;
use crate::open_loop::Opened;
use crate::restart::Restarts;
use crate::scenarios::{self, Kind};
use crate::target::Target;
use crate::tracing::Traces;

/// What others would build, and how much more is to be had from the same machine.
const PEERS: [(Target, f64); 3] = [(Target::Postgres, 3.0), (Target::Restate, 5.0), (Target::Synapse, 50.0)];

/// What a figure should be.
#[derive(Clone, Copy)]
enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// Nothing is asked of it.
    Known,
}

/// A figure of a case; none where the case says nothing of the server.
fn figure(measured: &Measured, of: impl Fn(&Measured) -> f64) -> f64 {
    if measured.tells() { of(measured) } else { f64::NAN }
}

/// One line of the table.
struct Line {
    what: String,
    aim: Aim,
    /// One for each round.
    values: Vec<f64>,
}

/// Everything that has a goal.
#[derive(Default)]
pub(crate) struct Goals {
    lines: Vec<Line>,
    /// Requests to the server that were not answered as they should have been, in every case. Such a case has no figures.
    failed: u64,
}

impl Goals {
    /// One more round. What is no number was not measured.
    fn add(&mut self, what: String, aim: Aim, value: f64) {
        let value = Some(value).filter(|value| value.is_finite());
        match self.lines.iter_mut().find(|line| line.what == what) {
            Some(line) => line.values.extend(value),
            None => self.lines.push(Line { what, aim, values: value.into_iter().collect() }),
        }
    }

    /// A round of appends, beside the limits of the same round. What the generator was too slow for says nothing.
    pub(crate) fn appends(&mut self, limits: &[Limit], cases: &[append::Case]) {
        let of = |target, clients| {
            cases.iter().find(|case| case.target == target && case.clients == clients).map(|case| &case.measured)
        };
        for case in cases.iter().filter(|case| case.target == Target::Tertulia) {
            let (own, clients) = (&case.measured, case.clients);
            self.failed += own.errors();
            let mut add = |what: &str, aim, value| self.add(format!("{what}, {clients} clients"), aim, value);
            if let Some(l0) = of(Target::L0, clients) {
                let ratio = |of: fn(&Measured) -> f64| figure(own, of) / figure(l0, of);
                add("throughput / L0", Aim::AtLeast(0.6), ratio(Measured::per_second));
                add("CPU / L0", Aim::AtMost(2.0), ratio(Measured::server_micros));
                add("p99 / L0", Aim::AtMost(2.5), ratio(|measured| measured.quantile(0.99)));
            }
            for (name, aim) in [("L2", Aim::AtLeast(0.8)), ("L3", Aim::Known)] {
                let limit = limits.iter().find(|limit| limit.name.starts_with(name) && limit.clients == clients);
                if let Some(limit) = limit {
                    add(&format!("throughput / {name}"), aim, figure(own, Measured::per_second) / limit.per_second());
                }
            }
            let hop = limits.iter().find(|limit| limit.name == limits::MANY_ACTORS && limit.clients == clients);
            if let Some(hop) = hop {
                // There and back, both sides of it.
                let share = 100.0 * hop.micros_each() / figure(own, Measured::server_micros);
                add("an actor's hop, % of a message's CPU", Aim::AtMost(10.0), share);
            }
            add("commits a sync", Aim::Known, figure(own, Measured::commits_a_sync));
            if let Some(unsynced) = of(Target::Unsynced, clients) {
                let ratio = figure(own, Measured::per_second) / figure(unsynced, Measured::per_second);
                add("throughput / without fsync", Aim::AtLeast(0.9), ratio);
            }
            for (target, factor) in PEERS {
                let Some(peer) = of(target, clients) else { continue };
                let ratio = |of: fn(&Measured) -> f64| figure(own, of) / figure(peer, of);
                add(&format!("throughput / {target}"), Aim::AtLeast(factor), ratio(Measured::per_second));
                let cpu = 1.0 / ratio(Measured::server_micros);
                add(&format!("CPU of {target} / CPU"), Aim::AtLeast(factor), cpu);
                add(&format!("p99 / {target}"), Aim::AtMost(1.0), ratio(|measured| measured.quantile(0.99)));
            }
        }
    }

    /// A round of open loops.
    pub(crate) fn stalls(&mut self, cases: &[open::Case]) {
        for case in cases.iter().filter(|case| case.target == Target::Tertulia) {
            let Opened { measured, unanswered, .. } = &case.opened;
            self.failed += measured.errors() + unanswered;
            let slowest = if *unanswered == 0 { figure(measured, |measured| measured.quantile(1.0)) } else { f64::NAN };
            self.add("slowest request at 70 % load, ms".to_owned(), Aim::AtMost(100.0), slowest);
        }
    }

    /// A round of scenarios.
    pub(crate) fn scenarios(&mut self, cases: &[scenarios::Case]) {
        let of = |kind| {
            let case = cases.iter().find(|case| case.kind == kind);
            case.map(|case| figure(&case.measured, Measured::per_second))
        };
        self.failed += cases.iter().map(|case| case.measured.errors()).sum::<u64>();
        if let Some(exchange) = cases.iter().find(|case| case.kind == Kind::Exchange) {
            // What was in flight when the clocks were read makes a difference of a hundredth.
            let commits = (figure(&exchange.measured, Measured::commits_each) * 10.0).round() / 10.0;
            self.add("commits of an exchange".to_owned(), Aim::AtMost(2.0), commits);
        }
        if let (Some(hot), Some(spread)) = (of(Kind::Hot), of(Kind::Keyed)) {
            self.add("one hot conversation / spread".to_owned(), Aim::AtLeast(0.5), hot / spread);
        }
    }

    /// What tracing takes in percent, by where the traces go. That nobody takes them costs what making them costs.
    pub(crate) fn tracing(&mut self, more: &[(Traces, f64)]) {
        for (traces, more) in more {
            let most = match traces {
                Traces::Off | Traces::Baseline => continue,
                Traces::Some => 2.0,
                Traces::All | Traces::Refused => 10.0,
            };
            self.add(format!("CPU with traces at {}, % more", traces.name()), Aim::AtMost(most), *more);
        }
    }

    /// Starts.
    pub(crate) fn restarts(&mut self, restarts: &Restarts) {
        let millis = |took: &Duration| took.as_secs_f64() * 1e3;
        self.add("ready on an empty store, ms".to_owned(), Aim::AtMost(100.0), millis(&restarts.empty));
        for took in &restarts.full {
            self.add("ready after SIGKILL, ms".to_owned(), Aim::AtMost(2_000.0), millis(took));
        }
    }

    /// Memory by conversations.
    pub(crate) fn memory(&mut self, cases: &[memory::Case]) {
        for (conversations, bytes) in cases.iter().filter(|(conversations, _)| *conversations == 100_000) {
            let what = format!("MB with {conversations} conversations resident");
            self.add(what, Aim::AtMost(600.0), *bytes as f64 / 1e6);
        }
    }

    /// The table.
    pub(crate) fn lines(&self) -> Vec<String> {
        let failed = Line {
            what: "requests that failed, of all cases".to_owned(),
            aim: Aim::AtMost(0.0),
            values: vec![self.failed as f64],
        };
        let head = "| what | lowest / middle / highest | goal | |\n|---|---:|---:|---|".to_owned();
        [head].into_iter().chain(self.lines.iter().chain([&failed]).map(Line::text)).collect()
    }
}

impl Aim {
    /// Whether a figure is as it should be; `None` where nothing is asked.
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(value >= least),
            Self::AtMost(most) => Some(value <= most),
            Self::Known => None,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::Known => f.write_str("–"),
        }
    }
}

impl Line {
    fn text(&self) -> String {
        let Self { what, aim, values } = self;
        let mut values = values.clone();
        values.sort_by(f64::total_cmp);
        let [Some(lowest), Some(middle), Some(highest)] = [values.first(), values.get(values.len() / 2), values.last()]
        else {
            return format!("| {what} | – | {aim} | not measured |");
        };
        format!("| {what} | {lowest:.2} / **{middle:.2}** / {highest:.2} | {aim} | {} |", self.verdict())
    }

    /// `met` and `missed` where all rounds say so.
    fn verdict(&self) -> String {
        let rounds = self.values.len();
        let verdicts: Option<Vec<bool>> = self.values.iter().map(|value| self.aim.is_met(*value)).collect();
        match verdicts.map(|verdicts| verdicts.into_iter().filter(|is_met| *is_met).count()) {
            None => String::new(),
            Some(met) if met == rounds => "met".to_owned(),
            Some(0) => "missed".to_owned(),
            Some(met) => format!("undecided: met in {met} of {rounds}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::tests::measured;

    #[test]
    fn a_goal_is_met_or_missed_where_all_rounds_say_so() {
        let mut goals = Goals::default();
        for (at_256, value) in [(0.5, 0.7), (0.7, 0.5), (0.5, 0.65)] {
            goals.add("throughput / L0, 64 clients".to_owned(), Aim::AtLeast(0.6), value);
            goals.add("throughput / L0, 256 clients".to_owned(), Aim::AtLeast(0.75), at_256);
            goals.add("one hot conversation / spread".to_owned(), Aim::AtLeast(0.5), value);
        }
        goals.add("nothing was measured".to_owned(), Aim::AtMost(1.0), f64::NAN);
        goals.add("commits a sync".to_owned(), Aim::Known, 12.0);
        goals.failed = 3;
        let expected = [
            "| throughput / L0, 64 clients | 0.50 / **0.65** / 0.70 | ≥ 0.6 | undecided: met in 2 of 3 |",
            "| throughput / L0, 256 clients | 0.50 / **0.50** / 0.70 | ≥ 0.75 | missed |",
            "| one hot conversation / spread | 0.50 / **0.65** / 0.70 | ≥ 0.5 | met |",
            "| nothing was measured | – | ≤ 1 | not measured |",
            "| commits a sync | 12.00 / **12.00** / 12.00 | – |  |",
            "| requests that failed, of all cases | 3.00 / **3.00** / 3.00 | ≤ 0 | missed |",
        ];
        assert_eq!(goals.lines()[1..], expected);
    }

    #[test]
    fn a_case_in_which_requests_failed_has_no_figures_and_is_counted() {
        let mut goals = Goals::default();
        let measured = measured();
        let errors = measured.errors();
        assert!(errors > 0);
        goals.appends(&[], &[append::Case { target: Target::Tertulia, clients: 64, measured }]);
        assert_eq!(goals.failed, errors);
        assert!(goals.lines()[1].ends_with("not measured |"), "{:?}", goals.lines());
    }
}
