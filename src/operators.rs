//! The operators' commands that work on the store itself, without a server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::agent::NoModels;
use actors::clock::SystemClock;
use actors::directory::CommandContext;
use actors::id::EntityKey;
use actors::node::Node;
use actors::registry::Command;
use actors::store::{Cause, StoreError};
use schema::embedded;
use tokio::time::{Duration, Instant};

use crate::bootstrap;
use crate::config::{Config, StoreKind};
use crate::files::FilesError;
use crate::secret::{NoRandomness, Pepper};
use crate::stores::{self, StoresError};
use crate::transfer::TransferError;

mod export;
mod keys;
mod verify;

pub use export::{export, import};
pub use keys::{NewKey, create_key, list_keys, revoke_key};
pub use verify::verify;

/// How long the store may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no store in the data directory.
    #[error("{0} contains no store; start the server once, or choose another --data-dir")]
    NoStore(String),
    /// A key was stored but could not be printed.
    #[error("the key {id} was created but could be neither shown nor revoked ({revoking}); revoke it")]
    Unseen {
        /// The key's id.
        id: String,
        /// Why it could not be revoked.
        revoking: Box<OperatorError>,
    },
    /// The store was not opened.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// The store was not opened for verification.
    #[error("cannot open the store: {0}")]
    Open(#[from] embedded::OpenError),
    /// Only the embedded store is verified from outside.
    #[error("a CQL cluster verifies its own data (`nodetool scrub`, `nodetool repair`); choose --store embedded")]
    NotEmbedded,
    /// The store has not seen its first start.
    #[error("the store has no installation yet; start the server once")]
    NoInstallation,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A change was not stored.
    #[error("nothing was stored: {0}")]
    Refused(#[source] Cause),
    /// There is no such workspace.
    #[error("there is no workspace {0}")]
    NoWorkspace(String),
    /// There is no such key.
    #[error("there is no key {0}")]
    NoKey(String),
    /// A value is invalid.
    #[error("{0}")]
    Invalid(String),
    /// No secret can be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The answer could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// An input cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unread {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An export or an import ended early.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The attachments cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The store is damaged; the text has all findings.
    #[error("{0}")]
    Damaged(String),
}

async fn change(node: &Arc<Node>, command: Command) -> Result<(), OperatorError> {
    let done = node.registry(EntityKey::INSTALLATION, command, CommandContext::default()).await;
    done.map(|_| ()).map_err(|refusal| OperatorError::Refused(refusal.into()))
}

/// Opens the store of an installation that has seen its first start.
async fn open(config: &Config) -> Result<(Arc<Node>, Pepper), OperatorError> {
    if config.store == StoreKind::Embedded {
        there(&config.data_dir)?;
    }
    // A failing store reports that in the answer to the command's one change.
    let store = stores::open(config, Box::new(|_| {})).await?;
    let clock = Arc::new(SystemClock);
    let entropy = crate::serve::entropy()?;
    let node = Node::without_services(store, clock, entropy, Arc::new(NoModels));
    match bootstrap::pepper(&node).await {
        Ok(Some(pepper)) => Ok((node, pepper)),
        other => {
            close(&node).await;
            Err(other.err().map_or(OperatorError::NoInstallation, OperatorError::Store))
        }
    }
}

async fn close(node: &Arc<Node>) {
    node.drain(Instant::now() + CLOSE_TIMEOUT).await;
}

/// Opening would create a missing store, which a command that reads one must not do. If there is any part of a store,
/// the engine's files or the HEAD file, the store itself checks it.
fn there(dir: &Path) -> Result<(), OperatorError> {
    let has_files = std::fs::read_dir(dir.join("engine")).is_ok_and(|mut entries| entries.next().is_some());
    if has_files || dir.join("HEAD").exists() { Ok(()) } else { Err(OperatorError::NoStore(dir.display().to_string())) }
}
