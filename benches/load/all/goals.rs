//! The goals, and how far the server reaches each.

use std::time::Duration;

use super::table::{Aim, Table};
use crate::append;
use crate::cql;
use crate::fanout;
use crate::kill;
use crate::limits::{self, Limit};
use crate::measured::Measured;
use crate::memory;
use crate::open;
use crate::open_loop::Opened;
use crate::report::thousands;
use crate::restart::Restarts;
use crate::scenarios::{self, Kind};
use crate::target::Target;
use crate::tracing::Traces;
use crate::turns;

/// What a team would build instead, and how many times more the server is to get from the same machine.
const PEERS: [(Target, f64); 3] = [(Target::Postgres, 3.0), (Target::Restate, 5.0), (Target::Synapse, 50.0)];

/// Messages in the store for which the goal of a start holds.
const MANY_MESSAGES: u32 = 10_000_000;

/// A figure of a case; NaN where the case says nothing about the server.
fn figure(measured: &Measured, of: impl Fn(&Measured) -> f64) -> f64 {
    if measured.tells() { of(measured) } else { f64::NAN }
}

/// Everything that has a goal.
#[derive(Default)]
pub(crate) struct Goals {
    table: Table,
    /// Requests to the server, over all cases, whose answers were not as expected. Such a case counts in no ratio.
    failed: u64,
}

impl Goals {
    fn add(&mut self, what: String, aim: Aim, value: f64) {
        self.table.add(what, aim, value);
    }

    /// A round of appends, beside the limits of the same round. A case in which the generator was the limit does not
    /// count.
    pub(crate) fn appends(&mut self, limits: &[Limit], cases: &[append::Case]) {
        let of = |target, clients| {
            cases.iter().find(|case| case.target == target && case.clients == clients).map(|case| &case.measured)
        };
        for case in cases.iter().filter(|case| case.target == Target::Tertulia) {
            let own = &case.measured;
            let clients = case.clients;
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
            let hops = [
                (limits::HOP, "an actor's hop, % of a message's CPU", Aim::AtMost(10.0)),
                (limits::MANY_ACTORS, "a bare ractor call, % of a message's CPU", Aim::Known),
            ];
            for (name, what, aim) in hops {
                let hop = limits.iter().find(|limit| limit.name == name && limit.clients == clients);
                if let Some(hop) = hop {
                    // There and back, with the work of both sides.
                    add(what, aim, 100.0 * hop.micros_each() / figure(own, Measured::server_micros));
                }
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

    /// A round of open loops at seven tenths of a closed loop's throughput.
    pub(crate) fn stalls(&mut self, seconds: u32, cases: &[open::Case]) {
        self.slowest(&format!("slowest request at 70 % load, {seconds} s a case, ms"), cases);
    }

    /// Ten minutes at a rate.
    pub(crate) fn ten_minutes(&mut self, rate: u32, cases: &[open::Case]) {
        self.slowest(&of_ten_minutes(rate), cases);
    }

    fn slowest(&mut self, what: &str, cases: &[open::Case]) {
        for case in cases.iter().filter(|case| case.target == Target::Tertulia) {
            let Opened { measured, unanswered, .. } = &case.opened;
            self.failed += measured.errors() + unanswered;
            let slowest = if *unanswered == 0 { figure(measured, |measured| measured.quantile(1.0)) } else { f64::NAN };
            self.add(what.to_owned(), Aim::AtMost(100.0), slowest);
        }
    }

    /// A round of scenarios, beside the limits of the same round.
    pub(crate) fn scenarios(&mut self, cases: &[scenarios::Case]) {
        let case = |target, kind| {
            let case = cases.iter().find(|case| case.target == target && case.kind == kind);
            case.map(|case| &case.measured)
        };
        let throughput = |target, kind| case(target, kind).map(|measured| figure(measured, Measured::per_second));
        let own = cases.iter().filter(|case| case.target == Target::Tertulia);
        self.failed += own.map(|case| case.measured.errors()).sum::<u64>();
        if let Some(exchange) = case(Target::Tertulia, Kind::Exchange) {
            // The requests in flight when the clocks were read make a difference of a hundredth.
            let commits = (figure(exchange, Measured::commits_each) * 10.0).round() / 10.0;
            self.add("commits of an exchange".to_owned(), Aim::AtMost(2.0), commits);
        }
        let [own, l0] = [Target::Tertulia, Target::L0];
        for (what, aim, above, below) in [
            ("one hot conversation / spread", Aim::AtLeast(0.5), (own, Kind::Hot), (own, Kind::Keyed)),
            ("zipf / spread (keyed)", Aim::Known, (own, Kind::Zipf), (own, Kind::Keyed)),
            ("message / L0 read", Aim::Known, (own, Kind::Message), (l0, Kind::Message)),
            ("page / L0 read of the same bytes", Aim::Known, (own, Kind::Page), (l0, Kind::Page)),
            ("exchange / L0 exchange", Aim::Known, (own, Kind::Exchange), (l0, Kind::Exchange)),
        ] {
            if let (Some(above), Some(below)) = (throughput(above.0, above.1), throughput(below.0, below.1)) {
                self.add(what.to_owned(), aim, above / below);
            }
        }
    }

    /// The cost of tracing in percent, by where the traces go. A dead receiver costs what recording the spans costs. What
    /// a second server without traces costs more than the first is chance: by so much the other figures may be wrong.
    pub(crate) fn tracing(&mut self, more: &[(Traces, f64)]) {
        for (traces, more) in more {
            let (what, aim) = match traces {
                Traces::Off | Traces::Baseline => continue,
                Traces::Again => ("off, on another server of the same program".to_owned(), Aim::Known),
                Traces::Some => (format!("at {}", traces.name()), Aim::AtMost(2.0)),
                Traces::All | Traces::Refused => (format!("at {}", traces.name()), Aim::AtMost(10.0)),
            };
            self.add(format!("CPU with traces {what}, % more"), aim, *more);
        }
    }

    /// The cost of a slow model's turns for appends.
    pub(crate) fn turns(&mut self, cases: &[turns::Case]) {
        self.failed += cases.iter().map(|case| case.measured.errors()).sum::<u64>();
        let of = |with_turns| cases.iter().filter(move |case: &&turns::Case| case.with_turns == with_turns);
        for (without, with) in of(false).zip(of(true)) {
            let ratio = |of: fn(&Measured) -> f64| figure(&with.measured, of) / figure(&without.measured, of);
            let mut add = |what: &str, value| {
                self.table.add(
                    format!("{what} while turns run / without, {} clients", with.clients),
                    Aim::Known,
                    value,
                );
            };
            add("throughput", ratio(Measured::per_second));
            add("p99", ratio(|measured| measured.quantile(0.99)));
        }
    }

    /// The time until an event reaches the last of its followers.
    pub(crate) fn fanout(&mut self, cases: &[fanout::Case]) {
        for own in cases.iter().filter(|case| case.target == Target::Tertulia) {
            let followers = own.followers;
            let limit = cases.iter().find(|case| case.target == Target::L0 && case.followers == followers);
            if let Some(l6) = limit {
                let what = format!("p99 to the last of {} followers / L6", thousands(followers));
                self.add(what, Aim::Known, own.last(0.99) / l6.last(0.99));
            }
        }
    }

    /// The messages missing after each kill.
    pub(crate) fn kills(&mut self, cases: &[kill::Case]) {
        for kill::Case { target, acknowledged, missing } in cases {
            let (of, aim) = match target {
                Target::Tertulia => (String::new(), Aim::AtMost(0.0)),
                peer => (format!(", {peer}"), Aim::Known),
            };
            let missing = if *acknowledged == 0 { f64::NAN } else { *missing as f64 };
            self.add(format!("messages missing after SIGKILL{of}"), aim, missing);
        }
    }

    /// The times of starts, with so many messages in the store.
    pub(crate) fn restarts(&mut self, messages: u32, restarts: &Restarts) {
        let millis = |took: &Duration| took.as_secs_f64() * 1e3;
        let after = |messages| format!("ready after SIGKILL with {} messages, ms", thousands(messages));
        self.add("ready on an empty store, ms".to_owned(), Aim::AtMost(100.0), millis(&restarts.empty));
        for took in &restarts.full {
            self.add(after(messages), Aim::AtMost(2_000.0), millis(took));
        }
        if messages < MANY_MESSAGES {
            self.table.owe(after(MANY_MESSAGES), Aim::AtMost(2_000.0), "load all --messages 10000000");
        }
    }

    /// Memory by conversations.
    pub(crate) fn memory(&mut self, cases: &[memory::Case]) {
        for memory::Case { conversations, full, kept } in cases {
            // The goal is for this number.
            let aim = if *conversations == 100_000 { Aim::AtMost(600.0) } else { Aim::Known };
            let what = format!("MB with {} conversations resident", thousands(*conversations));
            self.add(what, aim, *full as f64 / 1e6);
            let what = "KiB kept of a passivated conversation".to_owned();
            match kept {
                Some(kept) => self.add(what, Aim::Known, kept / 1024.0),
                None => self.table.owe(what, Aim::Known, "load memory --passivate"),
            }
        }
    }

    /// The CQL store beside its driver; `None` where the run did not include it.
    pub(crate) fn cql(&mut self, cases: Option<&[cql::Case]>) {
        const WHAT: &str = "CQL / driver (L4)";
        match cases {
            Some(cases) => cases.iter().for_each(|case| {
                let ratio = case.ratio(Measured::per_second);
                self.add(format!("{WHAT}, {} in flight", case.clients), Aim::AtLeast(0.85), ratio);
            }),
            None => self.table.owe(WHAT.to_owned(), Aim::AtLeast(0.85), "load cql"),
        }
    }

    /// The run did not include the ten minutes.
    pub(crate) fn no_ten_minutes(&mut self, rate: u32) {
        self.table.owe(of_ten_minutes(rate), Aim::AtMost(100.0), "load open --seconds 600");
    }

    /// The table.
    pub(crate) fn rows(mut self) -> Vec<String> {
        let failed = self.failed as f64;
        self.add("requests that failed, of all cases".to_owned(), Aim::AtMost(0.0), failed);
        self.table.rows()
    }
}

fn of_ten_minutes(rate: u32) -> String {
    format!("slowest request in ten minutes at {} a second, ms", thousands(rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::tests::measured;

    #[test]
    fn a_case_in_which_requests_failed_makes_no_ratio_and_is_counted() {
        let mut goals = Goals::default();
        let measured = measured();
        let errors = measured.errors();
        assert!(errors > 0);
        goals.appends(&[], &[append::Case { target: Target::Tertulia, clients: 64, measured }]);
        assert_eq!(goals.failed, errors);
        let rows = goals.rows();
        assert!(rows[2].ends_with("not counted |"), "{rows:?}");
        assert!(rows[3].ends_with("| **2.00** | ≤ 0 | missed |"), "{rows:?}");
    }

    #[test]
    fn a_kill_before_any_acknowledgement_has_no_result() {
        let mut goals = Goals::default();
        let kill = |target, acknowledged, missing| kill::Case { target, acknowledged, missing };
        goals.kills(&[kill(Target::Tertulia, 0, 0), kill(Target::Postgres, 10, 2)]);
        let expected = [
            "| messages missing after SIGKILL | – | ≤ 0 | not counted |",
            "| messages missing after SIGKILL, postgres | **2.00** | – |  |",
        ];
        assert_eq!(goals.rows()[2..4], expected);
    }

    #[test]
    fn a_goal_that_was_not_measured_names_the_command_that_measures_it() {
        let mut goals = Goals::default();
        goals.cql(None);
        goals.no_ten_minutes(10_000);
        goals.restarts(200, &Restarts { empty: Duration::from_millis(20), full: vec![Duration::from_millis(40)] });
        goals.memory(&[memory::Case { conversations: 100_000, full: 500_000_000, kept: None }]);
        let rows = goals.rows();
        let owed: Vec<&str> = rows.iter().filter(|row| row.contains("not measured")).map(String::as_str).collect();
        let expected = [
            "| CQL / driver (L4) | – | ≥ 0.85 | not measured: run load cql |",
            "| slowest request in ten minutes at 10,000 a second, ms | – | ≤ 100 | not measured: run load open --seconds 600 |",
            "| ready after SIGKILL with 10,000,000 messages, ms | – | ≤ 2000 | not measured: run load all --messages 10000000 |",
            "| KiB kept of a passivated conversation | – | – | not measured: run load memory --passivate |",
        ];
        assert_eq!(owed, expected);
    }
}
