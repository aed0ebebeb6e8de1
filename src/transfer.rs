//! Moving a workspace, or a whole installation, from one store to another: `tertulia export` writes it as JSON lines,
//! `tertulia import` reads them.
//!
//! It uses only the port `Store`, so it works between any two stores, and imported data gives the same answers: ids,
//! times, sequences, idempotency keys and configuration. The file contains everything in the data directory, secrets
//! too; protect it accordingly.
//!
//! Each line of an entity is one commit, numbered from 1, and an import makes exactly these. So an interrupted import
//! is simply run again: it counts an entity's commits, sends the newest one once more (which shows whether it came from
//! this file), and continues. An interrupted export continues too, if the store is unchanged: a file is of one moment.
//! Rows of the installation are added if they are missing, with the promises made to retries.

mod export;
mod import;
mod line;
mod listing;
mod promises;
mod resume;

pub use export::{Exported, export};
pub use import::{Imported, Options, import};
pub use resume::{export_to_file, is_replaceable};

use std::fmt;
use std::time::Duration;

use actors::id::EntityKey;
use actors::store::StoreError;

/// How long a store is retried that is unavailable, or does not report a commit's outcome: a commit sent twice is
/// applied once.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The part of the same export in a file before it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExistingExport {
    /// Nothing to keep.
    #[default]
    Nothing,
    /// A part, behind which the export continued.
    Part,
    /// An outdated part; the export restarted.
    Past(Moved),
    /// All of it.
    Whole,
}

/// The first difference between the store and a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The installation's keys, workspaces or settings.
    Installation,
    /// This entity was written to.
    Written(EntityKey),
    /// The file does not have this entity.
    Made(EntityKey),
    /// The store does not have this entity.
    Gone(EntityKey),
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => write!(f, "the installation was changed"),
            Self::Written(entity) => write!(f, "{entity:?} was changed"),
            Self::Made(entity) => write!(f, "{entity:?} is not in the file"),
            Self::Gone(entity) => write!(f, "{entity:?} is not in the store"),
        }
    }
}

/// Why an export or an import ended early.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The file could not be read or written.
    #[error("cannot read or write the export: {0}")]
    Io(#[from] std::io::Error),
    /// There is no such workspace.
    #[error("there is no workspace {0}")]
    NoWorkspace(String),
    /// The store has no installation.
    #[error("the store contains no installation")]
    NoInstallation,
    /// This entity was written to meanwhile.
    #[error("{0:?} was changed during the export; stop the servers and run the export again")]
    Moved(EntityKey),
    /// The file has a complete but outdated export.
    #[error(
        "the file holds a complete export, and the store has changed since ({0}); the file is unchanged: choose \
         another file, or replace it with --anew"
    )]
    Past(Moved),
    /// The file is not an export, or not one that this program reads.
    #[error("line {line} of the export: {what}")]
    Malformed {
        /// Which line, from 1.
        line: u64,
        /// The fault.
        what: String,
    },
    /// The target has another entity with this key.
    #[error("{0:?} is already in the store, and not from this export; import into an empty store or workspace")]
    Occupied(EntityKey),
    /// The target has this workspace already.
    #[error("the workspace {0} is already in the store; import before the first start, or into another store")]
    WorkspaceTaken(String),
    /// Keys are hashed under another secret than the target's.
    #[error(
        "this installation hashes API keys with another secret, so the exported keys would never be accepted; import \
         with --without-keys and create new ones"
    )]
    OtherPepper,
}
