//! `tertulia export` and `tertulia import`.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::clock::{Clock as _, SystemClock};
use actors::store::inventory::Inventory;

use super::{OperatorError, there};
use crate::config::{Config, StoreKind};
use crate::stores;
use crate::transfer::{self, ExistingExport};

/// Writes a workspace, or everything, as JSON lines: to standard output, or to a file, where an interrupted export is
/// resumed if nothing in it has changed and restarted otherwise. A complete but outdated one is refused; with `anew` it
/// is replaced, once the new one is complete. Returns a summary.
///
/// # Errors
/// See [`OperatorError`].
pub async fn export(
    config: &Config,
    workspace: Option<&str>,
    to: Option<&Path>,
    anew: bool,
) -> Result<String, OperatorError> {
    if config.store == StoreKind::Embedded {
        there(&config.data_dir)?;
    }
    let store = stores::open(config, Box::new(|_| {})).await?;
    let exported = export_to(&*store, workspace, to, anew).await;
    store.close().await;
    let transfer::Exported { entities, lines, resumed, found } = exported?;
    let before = match found {
        ExistingExport::Nothing | ExistingExport::Part => String::new(),
        ExistingExport::Past(moved) => {
            format!("the file held part of an export of another state ({moved}), so the export was restarted\n")
        }
        ExistingExport::Whole => {
            return Ok(format!(
                "the file is unchanged: it already holds all {entities} entities in their current state\n"
            ));
        }
    };
    Ok(format!(
        "{before}exported {entities} entities, {resumed} of them by an earlier export, in {lines} lines; \
         {FILES_APART}\n"
    ))
}

async fn export_to(
    store: &dyn Inventory,
    workspace: Option<&str>,
    to: Option<&Path>,
    anew: bool,
) -> Result<transfer::Exported, OperatorError> {
    let now = SystemClock.now();
    let Some(path) = to else {
        return Ok(transfer::export(store, workspace, now, io::BufWriter::new(io::stdout())).await?);
    };
    // A pipe or a device has no earlier export to resume, and must not be read, or it would read its own output.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        let to = File::options().write(true).open(path)?;
        return Ok(transfer::export(store, workspace, now, io::BufWriter::new(to)).await?);
    }
    if anew && path.try_exists()? {
        return replace(store, workspace, &path.canonicalize()?).await;
    }
    let file = secret_file(path)?;
    let done = transfer::export_to_file(store, workspace, now, &file).await;
    file.sync_all()?;
    sync_directory_of(path)?;
    Ok(done?)
}

/// Exports to a file beside `path` and, once that is complete, replaces `path`: until then the earlier export stays.
async fn replace(
    store: &dyn Inventory,
    workspace: Option<&str>,
    path: &Path,
) -> Result<transfer::Exported, OperatorError> {
    is_ours(&File::open(path)?, path, workspace)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".anew");
    let beside = PathBuf::from(beside);
    let file = secret_file(&beside)?;
    is_ours(&file, &beside, workspace)?;
    file.set_len(0)?;
    let done = transfer::export(store, workspace, SystemClock.now(), io::BufWriter::new(&file)).await?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    sync_directory_of(path)?;
    Ok(done)
}

/// Whether this export may overwrite a file.
fn is_ours(file: &File, path: &Path, workspace: Option<&str>) -> Result<(), OperatorError> {
    if transfer::is_replaceable(file, workspace)? {
        return Ok(());
    }
    let what = format!("{} is not a file of this export; choose another file", path.display());
    Err(OperatorError::Invalid(what))
}

/// A file's name is durable once its directory is.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.canonicalize()?.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// The note about what an export leaves out.
const FILES_APART: &str = "attachment bytes are not included and are copied separately";

/// Opens a file for reading and writing that only its owner may read: it will contain secrets. It is locked by this
/// process.
fn secret_file(path: &Path) -> Result<File, OperatorError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(OperatorError::Invalid(format!("another export is writing to {}", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Imports an export from a file or from standard input, as far as it is not done; returns a summary.
///
/// # Errors
/// See [`OperatorError`].
pub async fn import(config: &Config, from: Option<&Path>, options: transfer::Options) -> Result<String, OperatorError> {
    let lines: Box<dyn BufRead> = match from {
        Some(path) => Box::new(BufReader::new(File::open(path).map_err(|source| {
            let path = path.to_owned();
            OperatorError::Unread { path, source }
        })?)),
        None => Box::new(BufReader::new(io::stdin())),
    };
    let store = stores::open(config, Box::new(|_| {})).await?;
    let imported = transfer::import(Arc::<dyn Inventory>::clone(&store), options, lines).await;
    store.close().await;
    let transfer::Imported { entities, commits, skipped } = imported?;
    Ok(format!("imported {entities} entities: {commits} new commits, {skipped} already present; {FILES_APART}\n"))
}
