//! The scenarios run: everything that clients do, in closed loops, one after the other on the same server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::runtime::{self, Runtime};

use crate::append::KEY;
use crate::closed_loop::{self, Load};
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
    /// Which
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
    /// Exchanges with an agent whose model takes no time
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
    pub(crate) kind: Kind,
    pub(crate) measured: Measured,
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    cases(options).map(drop)
}

/// The same, with what was measured.
pub(crate) fn cases(options: &Options) -> Result<Vec<Case>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    say(&format!("\n{} clients, {} s a case, {}\n", options.clients, options.seconds, report::machine()))?;
    say(report::CLOSED)?;
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        // An empty one for each: keys that were used before would be answered without doing anything.
        let mut server = programs.start(Target::Tertulia)?;
        let address = server.address;
        let few = runtime.block_on(open_conversations(address, KEY, options.conversations))?;
        for kind in &options.only {
            let appends = || Appends::new(address, KEY, &few);
            let mut case = Running { options, runtime: &runtime, server: &mut server, kind: *kind };
            let measured = match kind {
                Kind::Keyed => case.drive(appends()),
                Kind::Unkeyed => case.drive(appends().without_keys()),
                Kind::Hot => case.drive(Appends::new(address, KEY, &few[..1])),
                Kind::Zipf => {
                    let many = runtime.block_on(open_conversations(address, KEY, options.many))?;
                    let zipf = Spread::Zipf(Zipf::new(options.many));
                    case.drive(Appends::new(address, KEY, &many).spread(zipf))
                }
                Kind::Exchange => {
                    let exchanges = Exchanges::open(address, KEY, options.conversations);
                    case.drive(runtime.block_on(exchanges)?)
                }
                Kind::Review => {
                    let reviews = Reviews::open(address, KEY, options.conversations / 10);
                    case.drive(runtime.block_on(reviews)?)
                }
                Kind::Message => case.drive(runtime.block_on(Reads::messages(address, KEY, &few))?),
                Kind::Page => case.drive(runtime.block_on(Reads::pages(address, KEY, &few))?),
            };
            cases.push(Case { kind: *kind, measured: measured? });
        }
    }
    Ok(cases)
}

/// A scenario about to be run.
struct Running<'a> {
    options: &'a Options,
    runtime: &'a Runtime,
    server: &'a mut Server,
    kind: Kind,
}

impl Running<'_> {
    fn drive<S: Scenario>(&mut self, scenario: S) -> Result<Measured, Error> {
        let scenario = Arc::new(scenario);
        let Options { clients, seconds, rate, .. } = *self.options;
        let (warm_up, measured) = (Duration::from_secs(2), Duration::from_secs(seconds.into()));
        let load = Load { clients, warm_up, measured };
        let closed = self.runtime.block_on(closed_loop::drive(self.server, &scenario, load))?;
        self.server.alive()?;
        say(&report::closed("tertulia", self.kind.name(), clients, &closed))?;
        if rate > 0.0 {
            let load = Arrivals { rate, warm_up, measured, connections: 256 };
            let opened = self.runtime.block_on(open_loop::drive(self.server, &scenario, load))?;
            self.server.alive()?;
            say(&format!("{}\n{}", report::OPEN, report::open("tertulia", self.kind.name(), &opened)))?;
        }
        Ok(closed)
    }
}
