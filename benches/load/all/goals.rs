//! The goals, and how far each of them is reached.

use std::time::Duration;

use crate::append;
use crate::arrivals;
use crate::limits::{self, Limit};
use crate::measured::Measured;
use crate::memory;
use crate::restart::Restarts;
use crate::scenarios::{self, Kind};
use crate::target::Target;

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

/// A figure of a case; none where the generator was its limit.
fn figure(measured: &Measured, of: impl Fn(&Measured) -> f64) -> f64 {
    if measured.generator_was_the_limit() { f64::NAN } else { of(measured) }
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
pub(crate) struct Goals(Vec<Line>);

impl Goals {
    /// One more round. What is no number was not measured.
    fn add(&mut self, what: String, aim: Aim, value: f64) {
        let value = Some(value).filter(|value| value.is_finite());
        match self.0.iter_mut().find(|line| line.what == what) {
            Some(line) => line.values.extend(value),
            None => self.0.push(Line { what, aim, values: value.into_iter().collect() }),
        }
    }

    /// A round of appends, beside the limits of the same round. What the generator was too slow for says nothing.
    pub(crate) fn appends(&mut self, limits: &[Limit], cases: &[append::Case]) {
        let of = |target, clients| {
            cases.iter().find(|case| case.target == target && case.clients == clients).map(|case| &case.measured)
        };
        for case in cases.iter().filter(|case| case.target == Target::Tertulia) {
            let (own, clients) = (&case.measured, case.clients);
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
                let share = 100.0 * hop.micros_each() / own.server_micros();
                add("an actor's hop, % of a message's CPU", Aim::AtMost(10.0), share);
            }
            add("commits a sync", Aim::Known, own.commits_a_sync());
            if let Some(unsynced) = of(Target::Unsynced, clients) {
                let ratio = figure(own, Measured::per_second) / figure(unsynced, Measured::per_second);
                add("throughput / without fsync", Aim::AtLeast(0.9), ratio);
            }
            for (target, factor) in PEERS {
                let Some(peer) = of(target, clients) else { continue };
                let throughput = figure(own, Measured::per_second) / figure(peer, Measured::per_second);
                add(&format!("throughput / {target}"), Aim::AtLeast(factor), throughput);
                let cpu = peer.server_micros() / own.server_micros();
                add(&format!("CPU of {target} / CPU"), Aim::AtLeast(factor), cpu);
                add(&format!("p99 / {target}"), Aim::AtMost(1.0), own.quantile(0.99) / peer.quantile(0.99));
            }
        }
    }

    /// A round of open loops.
    pub(crate) fn stalls(&mut self, cases: &[arrivals::Case]) {
        for case in cases.iter().filter(|case| case.target == Target::Tertulia) {
            let slowest = figure(&case.opened.measured, |measured| measured.quantile(1.0));
            self.add("slowest request at 70 % load, ms".to_owned(), Aim::AtMost(100.0), slowest);
        }
    }

    /// A round of scenarios.
    pub(crate) fn scenarios(&mut self, cases: &[scenarios::Case]) {
        let of = |kind| {
            let case = cases.iter().find(|case| case.kind == kind);
            case.map(|case| figure(&case.measured, Measured::per_second))
        };
        if let Some(exchange) = cases.iter().find(|case| case.kind == Kind::Exchange) {
            // What was in flight when the clocks were read makes the difference to two.
            self.add("commits of an exchange".to_owned(), Aim::AtMost(2.05), exchange.measured.commits_each());
        }
        if let (Some(hot), Some(spread)) = (of(Kind::Hot), of(Kind::Keyed)) {
            self.add("one hot conversation / spread".to_owned(), Aim::AtLeast(0.5), hot / spread);
        }
    }

    /// What tracing takes in percent, by where the traces go.
    pub(crate) fn tracing(&mut self, more: &[(&str, f64)]) {
        for (name, more) in more.iter().skip(1) {
            let most = if name.starts_with("100") { 10.0 } else { 2.0 };
            self.add(format!("CPU with traces at {name}, % more"), Aim::AtMost(most), *more);
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
        let mut lines = vec!["| what | lowest / middle / highest | goal | |\n|---|---:|---:|---|".to_owned()];
        for Line { what, aim, values } in &self.0 {
            let mut values = values.clone();
            values.sort_by(f64::total_cmp);
            let middle = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
            let (goal, is_met) = match aim {
                Aim::Known => ("–".to_owned(), None),
                Aim::AtLeast(least) => (format!("≥ {least}"), Some(middle >= *least)),
                Aim::AtMost(most) => (format!("≤ {most}"), Some(middle <= *most)),
            };
            let (Some(lowest), Some(highest)) = (values.first(), values.last()) else {
                lines.push(format!("| {what} | – | {goal} | not measured |"));
                continue;
            };
            let met = is_met.map_or("", |is_met| if is_met { "met" } else { "missed" });
            lines.push(format!("| {what} | {lowest:.2} / **{middle:.2}** / {highest:.2} | {goal} | {met} |"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_the_round_in_the_middle() {
        let mut goals = Goals::default();
        for value in [0.7, 0.5, 0.65] {
            goals.add("throughput / L0".to_owned(), Aim::AtLeast(0.6), value);
        }
        goals.add("nothing was measured".to_owned(), Aim::AtMost(1.0), f64::NAN);
        let lines = goals.lines();
        assert_eq!(lines[2..], ["| nothing was measured | – | ≤ 1 | not measured |"]);
        assert_eq!(lines[1], "| throughput / L0 | 0.50 / **0.65** / 0.70 | ≥ 0.6 | met |");
    }
}
