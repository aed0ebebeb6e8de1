//! The scenarios run: all operations of clients, in closed loops, one after the other on the same server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::runtime::{self, Runtime};

use crate::append::KEY;
use crate::closed_loop::{self, Load};
use crate::connection::{Connection, head};
use crate::dialect::with_length;
use crate::measured::Measured;
use crate::open_loop::{self, Arrivals};
use crate::scenario::append::{Appends, Spread};
use crate::scenario::exchange::Exchanges;
use crate::scenario::read::Reads;
use crate::scenario::review::Reviews;
use crate::scenario::zipf::Zipf;
use crate::scenario::{Scenario, open_conversations};
use crate::server::Server;
use crate::target::{Programs, Target};
use crate::{Error, report, say};

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Scenarios to run
    #[arg(long, value_delimiter = ',', default_values_t = Kind::value_variants().to_vec())]
    pub(crate) only: Vec<Kind>,
    /// Clients; every one keeps one connection and one request in flight
    #[arg(long, default_value_t = 64)]
    pub(crate) clients: u32,
    /// Conversations, contacts, and channels with reviews (a tenth as many of these)
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    pub(crate) conversations: u32,
    /// Conversations of the scenario `zipf`
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) many: u32,
    /// Seconds measured in each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Requests a second for an open loop after each closed one; 0: none
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Rounds over all cases
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) rounds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
}

/// A scenario by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Durable appends, each under an idempotency key
    Keyed,
    /// The same without keys
    Unkeyed,
    /// The same, all to one conversation
    Hot,
    /// The same to many conversations, by Zipf's law
    Zipf,
    /// Exchanges with an agent whose model answers without delay
    Exchange,
    /// A review asked and answered, two requests each
    Review,
    /// One message read by its id
    Message,
    /// The newest 50 messages of a conversation read
    Page,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keyed => "keyed",
            Self::Unkeyed => "unkeyed",
            Self::Hot => "hot",
            Self::Zipf => "zipf",
            Self::Exchange => "exchange",
            Self::Review => "review",
            Self::Message => "message",
            Self::Page => "page",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A scenario's closed loop.
pub(crate) struct Case {
    /// The real server, or L0 where it can answer the scenario.
    pub(crate) target: Target,
    pub(crate) kind: Kind,
    pub(crate) measured: Measured,
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    cases(options).map(drop)
}

/// The same, and returns the cases.
pub(crate) fn cases(options: &Options) -> Result<Vec<Case>, Error> {
    let mut programs = Programs::new(options.server.clone(), None);
    say(&format!("\n{} clients, {} s a case, {}\n", options.clients, options.seconds, report::machine()))?;
    say(report::CLOSED)?;
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        // A new server for each round: it would answer keys that were used before without any work.
        let mut round = Round {
            options,
            runtime: runtime::Builder::new_current_thread().enable_all().build()?,
            own: programs.start(Target::Tertulia)?,
            l0: programs.start(Target::L0)?,
            cases: &mut cases,
        };
        let few = round.runtime.block_on(open_conversations(round.own.address, KEY, options.conversations))?;
        for kind in &options.only {
            round.run(*kind, &few)?;
        }
    }
    Ok(cases)
}

/// A round over all scenarios.
struct Round<'a> {
    options: &'a Options,
    runtime: Runtime,
    own: Server,
    l0: Server,
    cases: &'a mut Vec<Case>,
}

impl Round<'_> {
    /// Runs a scenario and, where there is one, its limit.
    fn run(&mut self, kind: Kind, few: &[String]) -> Result<(), Error> {
        let Options { conversations, many, .. } = *self.options;
        let address = self.own.address;
        let l0 = self.l0.address;
        let appends = || Appends::new(address, KEY, few);
        match kind {
            Kind::Keyed => self.drive(kind, appends()),
            Kind::Unkeyed => self.drive(kind, appends().without_keys()),
            Kind::Hot => self.drive(kind, Appends::new(address, KEY, &few[..1])),
            Kind::Zipf => {
                let ids = self.runtime.block_on(open_conversations(address, KEY, many))?;
                self.drive(kind, Appends::new(address, KEY, &ids).spread(Spread::Zipf(Zipf::new(many))))
            }
            Kind::Exchange => {
                let exchanges = self.runtime.block_on(Exchanges::open(address, KEY, conversations))?;
                self.drive_beside(kind, exchanges, Exchanges::new(l0, KEY, conversations))
            }
            Kind::Review => {
                let reviews = self.runtime.block_on(Reviews::open(address, KEY, conversations / 10))?;
                self.drive(kind, reviews)
            }
            Kind::Message => {
                let paths = self.runtime.block_on(Reads::messages(address, KEY, few))?;
                self.drive_beside(kind, Reads::new(address, KEY, &paths), Reads::new(l0, KEY, &paths))
            }
            Kind::Page => {
                let paths = self.runtime.block_on(Reads::pages(address, KEY, few))?;
                self.drive_beside(kind, Reads::new(address, KEY, &paths), Reads::new(l0, KEY, &paths))
            }
        }
    }

    /// Also drives the no-op server, which is given one of the real server's answers first.
    fn drive_beside<S: Scenario>(&mut self, kind: Kind, own: S, limit: S) -> Result<(), Error> {
        let given = async {
            let mut connection = Connection::new(self.own.address);
            let status = own.once(&mut connection).await?;
            let answer = String::from_utf8_lossy(connection.body()).into_owned();
            if status != 200 {
                return Err(format!("{kind}: {status} {answer}").into());
            }
            let mut request = Vec::new();
            head(&mut request, "PUT", &format!("/answers/{kind}"), self.l0.address, KEY);
            request.extend(with_length(&answer));
            Connection::new(self.l0.address).request(&request).await
        };
        self.runtime.block_on(given)?;
        self.drive(kind, own)?;
        let measured = self.closed(Target::L0, kind, &Arc::new(limit))?;
        self.cases.push(Case { target: Target::L0, kind, measured });
        Ok(())
    }

    fn drive<S: Scenario>(&mut self, kind: Kind, scenario: S) -> Result<(), Error> {
        let scenario = Arc::new(scenario);
        let measured = self.closed(Target::Tertulia, kind, &scenario)?;
        self.cases.push(Case { target: Target::Tertulia, kind, measured });
        let rate = self.options.rate;
        if rate > 0.0 {
            let Load { warm_up, measured, .. } = self.load();
            let load = Arrivals { rate, warm_up, measured, connections: 256 };
            let opened = self.runtime.block_on(open_loop::drive(&self.own, &scenario, load))?;
            self.own.alive()?;
            say(&format!("{}\n{}", report::OPEN, report::open("tertulia", kind.name(), &opened)))?;
        }
        Ok(())
    }

    /// A warm-up of two seconds, or less for a shorter measurement.
    fn load(&self) -> Load {
        let Options { clients, seconds, .. } = *self.options;
        let of = |seconds: u32| Duration::from_secs(seconds.into());
        Load { clients, warm_up: of(seconds.min(2)), measured: of(seconds) }
    }

    fn closed<S: Scenario>(&mut self, target: Target, kind: Kind, scenario: &Arc<S>) -> Result<Measured, Error> {
        let load = self.load();
        let server = if target == Target::L0 { &mut self.l0 } else { &mut self.own };
        let measured = self.runtime.block_on(closed_loop::drive(server, scenario, load))?;
        server.alive()?;
        say(&report::closed(target.name(), kind.name(), load.clients, &measured))?;
        Ok(measured)
    }
}
