//! Opening a store, and checking that no acknowledged data is missing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::clock::Clock;

use super::chain::Chain;
use super::engine::Engine;
use super::head_file::{HeadFile, HeadFileContent, Mark};
use super::journal;
use super::lock::{Attempt, DirectoryLock};
use super::manifest;
use crate::private_dir;

const LOCK: &str = "LOCK";
const HEAD: &str = "HEAD";
pub(super) const ENGINE: &str = "engine";
/// The engine's last file when it creates a database; without it there is none.
const ENGINE_MARKER: &str = "version";
/// Its length: a magic number and the version.
const ENGINE_MARKER_BYTES: u64 = 4;

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another opener has the directory.
    #[error("{} is in use by process {}", dir.display(), holder.map_or_else(|| "unknown".to_owned(), |p| p.to_string()))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The opener's process id, unless it has just begun.
        holder: Option<u32>,
    },
    /// The store lacks acknowledged batches.
    #[error("acknowledged data is missing: batches {from} to {to}")]
    AcknowledgedDataMissing {
        /// The first missing batch.
        from: u64,
        /// The last missing batch.
        to: u64,
    },
    /// There is no store, and none may be created.
    #[error("{} contains no store", .0.display())]
    NoStore(PathBuf),
    /// The file without which the engine's directory is no database is missing or incomplete, although the directory
    /// holds data and so is no interrupted creation. Opening would start over, so this is refused even if a loss is
    /// accepted.
    #[error(
        "{} is missing or incomplete, but {} contains data; restore all files of the directory together",
        missing.display(),
        data.display()
    )]
    DatabaseIncomplete {
        /// The missing file.
        missing: PathBuf,
        /// A file with data.
        data: PathBuf,
    },
    /// There is a database but no HEAD file, so its completeness cannot be checked.
    #[error("the HEAD file is missing")]
    HeadMissing,
    /// Neither half of the HEAD file can be read.
    #[error("the HEAD file is damaged")]
    HeadDamaged,
    /// The store and the HEAD file name different contents for the same batch.
    #[error("batch {batch} is not the one that was acknowledged")]
    ChainMismatch {
        /// The batch.
        batch: u64,
    },
    /// A part other than the torn end of the newest journal cannot be read.
    #[error("a journal is damaged: {0}")]
    JournalDamaged(String),
    /// The engine's list of tables is damaged or missing. Opening would delete tables, so this is refused even if a
    /// loss is accepted.
    #[error("a manifest is damaged: {0}")]
    ManifestDamaged(String),
    /// The engine could not open its files.
    #[error("the engine cannot open its files: {0}")]
    Engine(String),
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Whether `accept_loss` accepts it.
    fn is_loss(&self) -> bool {
        !matches!(
            self,
            Self::Io { .. }
                | Self::InUse { .. }
                | Self::NoStore(_)
                | Self::DatabaseIncomplete { .. }
                | Self::ManifestDamaged(_)
                | Self::Engine(_)
        )
    }
}

/// An open store before its threads run.
pub(super) struct Opened {
    pub(super) lock: DirectoryLock,
    pub(super) engine: Engine,
    pub(super) chain: Chain,
    pub(super) head_file: HeadFile,
}

/// Passes an accepted loss, and logs it.
fn judge<T: Default>(found: Result<T, OpenError>, accept_loss: bool) -> Result<T, OpenError> {
    match found {
        Err(loss) if accept_loss && loss.is_loss() => {
            tracing::warn!(%loss, "accepted");
            Ok(T::default())
        }
        other => other,
    }
}

/// The actions that opening may take besides reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenMode {
    /// Create a store if there is none.
    pub(super) create: bool,
    /// Continue without missing acknowledged data.
    pub(super) accept_loss: bool,
}

pub(super) fn open(dir: &Path, may: OpenMode, cache_bytes: u64, clock: Arc<dyn Clock>) -> Result<Opened, OpenError> {
    let OpenMode { create, accept_loss } = may;
    if create {
        private_dir::create(dir).map_err(|error| OpenError::io(dir, error))?;
    }
    let lock_path = dir.join(LOCK);
    let head_path = dir.join(HEAD);
    let engine_dir = dir.join(ENGINE);
    let lock = match DirectoryLock::attempt(&lock_path).map_err(|error| OpenError::io(&lock_path, error))? {
        Attempt::Locked(lock) => lock,
        Attempt::Held(holder) => return Err(OpenError::InUse { dir: dir.to_owned(), holder }),
    };
    let acknowledged = judge(acknowledged(dir, &head_path, &engine_dir, create), accept_loss)?;
    inspect_manifests(&engine_dir, acknowledged)?;
    let in_journals = judge(inspect_journals(&engine_dir, acknowledged), accept_loss)?;
    let engine = Engine::open(&engine_dir, cache_bytes, clock).map_err(OpenError::Engine)?;
    let chain = match engine.chain() {
        Ok(chain) => chain.unwrap_or_default(),
        Err(_) if accept_loss => Chain::default(),
        Err(error) => return Err(OpenError::Engine(error)),
    };
    judge(compare(&chain, acknowledged, in_journals), accept_loss)?;
    if accept_loss {
        // The unreadable parts of sealed journals are dropped once everything else is in tables.
        engine.flush().map_err(OpenError::Engine)?;
    }
    let head_file = HeadFile::create(&head_path, (&chain).into()).map_err(|error| OpenError::io(&head_path, error))?;
    Ok(Opened { lock, engine, chain, head_file })
}

/// The acknowledged mark of the HEAD file. If nothing was ever acknowledged, the leftovers of an interrupted creation
/// are removed.
fn acknowledged(dir: &Path, head_path: &Path, engine_dir: &Path, create: bool) -> Result<Mark, OpenError> {
    let database = is_database(engine_dir)?;
    if !database && let Some(data) = data(engine_dir)? {
        return Err(OpenError::DatabaseIncomplete { missing: engine_dir.join(ENGINE_MARKER), data });
    }
    match HeadFile::read(head_path).map_err(|error| OpenError::io(head_path, error))? {
        HeadFileContent::Missing if database => Err(OpenError::HeadMissing),
        HeadFileContent::Damaged => Err(OpenError::HeadDamaged),
        HeadFileContent::Mark(mark) if database => Ok(mark),
        HeadFileContent::Mark(mark) if mark.batch > 0 => {
            Err(OpenError::AcknowledgedDataMissing { from: 1, to: mark.batch })
        }
        HeadFileContent::Mark(_) | HeadFileContent::Missing if !create => Err(OpenError::NoStore(dir.to_owned())),
        HeadFileContent::Mark(_) | HeadFileContent::Missing => {
            begin(dir, head_path, engine_dir)?;
            Ok(Mark::default())
        }
    }
}

/// Whether the engine has made a database in its directory. It does not write its marker atomically, so an incomplete
/// one is also an interrupted creation.
fn is_database(engine_dir: &Path) -> Result<bool, OpenError> {
    let marker = engine_dir.join(ENGINE_MARKER);
    match std::fs::metadata(&marker) {
        Ok(found) => Ok(found.len() >= ENGINE_MARKER_BYTES),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::io(&marker, error)),
    }
}

fn is_there(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|error| OpenError::io(path, error))
}

/// A file with data in a directory that is no database. The engine makes keyspaces only in a database, so an
/// interrupted creation leaves only a journal without a batch.
fn data(engine_dir: &Path) -> Result<Option<PathBuf>, OpenError> {
    if !is_there(engine_dir)? {
        return Ok(None);
    }
    let keyspaces = engine_dir.join(manifest::KEYSPACES_DIR);
    let keyspace = match std::fs::read_dir(&keyspaces).map(|mut entries| entries.next().transpose()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => read.and_then(|entry| entry).map_err(|error| OpenError::io(&keyspaces, error))?,
    };
    if let Some(keyspace) = keyspace {
        return Ok(Some(keyspace.path()));
    }
    match journals(engine_dir) {
        Ok(journal::Journals { newest: None }) => Ok(None),
        Ok(_) | Err(OpenError::JournalDamaged(_)) => Ok(Some(engine_dir.to_owned())),
        Err(error) => Err(error),
    }
}

/// Creates the HEAD file before the database, so that there is never a database without one.
fn begin(dir: &Path, head_path: &Path, engine_dir: &Path) -> Result<(), OpenError> {
    if is_there(engine_dir)? {
        std::fs::remove_dir_all(engine_dir).map_err(|error| OpenError::io(engine_dir, error))?;
    }
    let fresh = head_path.with_extension("new");
    HeadFile::create(&fresh, Mark::default()).map_err(|error| OpenError::io(&fresh, error))?;
    std::fs::rename(&fresh, head_path).map_err(|error| OpenError::io(head_path, error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| OpenError::io(dir, error))
}

fn inspect_manifests(engine_dir: &Path, acknowledged: Mark) -> Result<(), OpenError> {
    if !is_database(engine_dir)? {
        return Ok(());
    }
    manifest::inspect(engine_dir, acknowledged.batch > 0).map_err(|fault| match fault {
        journal::Fault::Io(error) => OpenError::io(engine_dir, error),
        journal::Fault::Damaged(what) => OpenError::ManifestDamaged(what),
    })
}

/// The newest batch in the journals, inspected before the engine may cut them.
fn inspect_journals(engine_dir: &Path, acknowledged: Mark) -> Result<Option<u64>, OpenError> {
    if !is_there(engine_dir)? {
        return Ok(None);
    }
    match journals(engine_dir)?.newest {
        Some(newest) if newest < acknowledged.batch => {
            Err(OpenError::AcknowledgedDataMissing { from: newest + 1, to: acknowledged.batch })
        }
        newest => Ok(newest),
    }
}

fn journals(engine_dir: &Path) -> Result<journal::Journals, OpenError> {
    journal::inspect(engine_dir).map_err(|fault| match fault {
        journal::Fault::Io(error) => OpenError::io(engine_dir, error),
        journal::Fault::Damaged(what) => OpenError::JournalDamaged(what),
    })
}

fn compare(chain: &Chain, acknowledged: Mark, in_journals: Option<u64>) -> Result<(), OpenError> {
    let known = acknowledged.batch.max(in_journals.unwrap_or(0));
    if chain.batch < known {
        return Err(OpenError::AcknowledgedDataMissing { from: chain.batch + 1, to: known });
    }
    if chain.batch == acknowledged.batch && chain.hash != acknowledged.hash {
        return Err(OpenError::ChainMismatch { batch: chain.batch });
    }
    Ok(())
}
