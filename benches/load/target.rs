//! The servers that a run can compare.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::append::KEY;
use crate::server::{self, Server};
use crate::{Error, postgres, restate, synapse};

/// A server under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The no-op server
    L0,
    /// The real server
    Tertulia,
    /// The real server with its data in memory, where an fsync costs nothing
    Unsynced,
    /// axum on Postgres
    Postgres,
    /// A virtual object of Restate
    Restate,
    /// Rooms of a Matrix server
    Synapse,
}

/// A directory in memory, where the system has one.
const MEMORY: &str = "/dev/shm";

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::L0 => "l0",
            Self::Tertulia => "tertulia",
            Self::Unsynced => "unsynced",
            Self::Postgres => "postgres",
            Self::Restate => "restate",
            Self::Synapse => "synapse",
        }
    }

    /// Whether it promises that acknowledged messages survive a kill.
    pub(crate) fn is_durable(self) -> bool {
        !matches!(self, Self::L0 | Self::Unsynced)
    }

    /// How many conversations it gets where so many are requested.
    pub(crate) fn conversations(self, asked: u32) -> u32 {
        if self == Self::Synapse { asked.min(synapse::ROOMS) } else { asked }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The programs of the servers, built when they are first needed.
pub(crate) struct Programs {
    server: Option<PathBuf>,
    peers: Option<PathBuf>,
    handler: Option<PathBuf>,
    data_dir: Option<PathBuf>,
}

impl Programs {
    /// Programs with this real server, and an empty directory for its data.
    pub(crate) fn new(server: Option<PathBuf>, data_dir: Option<PathBuf>) -> Self {
        Self { server, peers: None, handler: None, data_dir }
    }

    /// The real server's program.
    pub(crate) fn server(&mut self) -> Result<&Path, Error> {
        if self.server.is_none() {
            self.server = Some(server::build("tertulia", "tertulia")?);
        }
        Ok(self.server.as_deref().ok_or("the server was built a moment ago")?)
    }

    /// The program of the peers.
    fn peers(&mut self) -> Result<&Path, Error> {
        if self.peers.is_none() {
            self.peers = Some(server::build("benches", "peers")?);
        }
        Ok(self.peers.as_deref().ok_or("the peers were built a moment ago")?)
    }

    /// The handler that Restate calls, built once Restate is known to be installed.
    fn handler(&mut self) -> Result<&Path, Error> {
        if self.handler.is_none() {
            restate::program()?;
            self.handler = Some(server::build_apart("peers/restate", "conversation")?);
        }
        Ok(self.handler.as_deref().ok_or("the handler was built a moment ago")?)
    }

    /// Starts a server on an empty store.
    pub(crate) fn start(&mut self, target: Target) -> Result<Server, Error> {
        match (target, &self.data_dir) {
            (Target::Tertulia, Some(given)) => {
                let given = given.clone();
                server::tertulia(self.server()?, Some(&given), KEY, &[])
            }
            (Target::Unsynced, _) => {
                let dir = Path::new(MEMORY).join(format!("tertulia-load-{}", std::process::id()));
                self.start_in(target, &dir)
            }
            _ => self.start_in(target, &server::data_dir()?),
        }
    }

    /// Starts a server on data that may exist; it is removed in the end.
    pub(crate) fn start_in(&mut self, target: Target, dir: &Path) -> Result<Server, Error> {
        match target {
            Target::L0 => server::noop(KEY),
            Target::Tertulia => server::tertulia_in(self.server()?, dir, KEY),
            Target::Unsynced => Ok(server::tertulia_in(self.server()?, dir, KEY)?.without_disk()),
            Target::Postgres => postgres::start_in(self.peers()?, dir, KEY),
            Target::Restate => restate::start_in(self.handler()?, dir),
            Target::Synapse => synapse::start_in(dir),
        }
    }
}
