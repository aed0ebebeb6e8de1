//! Continuing an interrupted export to a file.
//!
//! A file is of one moment. So its content is kept only if the store has not changed: the installation's rows, the same
//! entities in the same order, each with the same head.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Seek as _, SeekFrom};

use actors::clock::Millis;
use actors::id::{Address, EntityKey, Kind};
use actors::store::ReadLevel;
use actors::store::inventory::Inventory;
use actors::tasks::backoff::retry_transient;
use futures_util::future::try_join_all;

use super::export::{Exported, Out, entities, export, installation};
use super::import::LINE_BYTES;
use super::line::{Blob, FORMAT, Line, Name, VERSION, sum_of};
use super::listing::{InstallationDigest, Listing, fingerprint_of};
use super::{ExistingExport, Moved, RETRY_TIMEOUT, TransferError};

/// A bound above the length of an export's last line.
const END_BYTES: u64 = 1_024;
/// Entities compared together: each waits for the store.
const MAX_COMPARED_TOGETHER: usize = 32;

/// Writes an export to `file`. The file's part of the same export is kept, up to the last complete entity, if the store
/// still has the same; if not, the export restarts.
///
/// # Errors
/// See [`TransferError`]. A file with any other content is left unchanged, and so is a complete export of another
/// moment ([`TransferError::Past`]).
pub async fn export_to_file(
    store: &dyn Inventory,
    workspace: Option<&str>,
    now: Millis,
    mut file: &File,
) -> Result<Exported, TransferError> {
    file.seek(SeekFrom::Start(0))?;
    let check = Check::new(store, workspace);
    // Hashers are two kilobytes each.
    let all = Lines::default();
    let whole = Lines::default();
    let mut kept = Box::new(ExportScan { all, whole, of_entity: blake3::Hasher::new(), check });
    let has_ended = kept.read(file).await?;
    match (kept.check.moved.take(), has_ended) {
        (Some(moved), true) => return Err(TransferError::Past(moved)),
        (None, true) => {
            let done = kept.all.done;
            return Ok(Exported { resumed: done.entities, found: ExistingExport::Whole, ..done });
        }
        (Some(moved), false) => {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            let done = export(store, workspace, now, BufWriter::new(file)).await?;
            return Ok(Exported { found: ExistingExport::Past(moved), ..done });
        }
        (None, false) => {}
    }
    let ExportScan { whole: Lines { hasher, done, bytes }, check, .. } = *kept;
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes))?;
    let to = BufWriter::new(file);
    if bytes == 0 {
        return export(store, workspace, now, to).await;
    }
    let done = Exported { resumed: done.entities, found: ExistingExport::Part, ..done };
    entities(store, check.listing, Out { hasher, done, ..Out::new(to) }).await
}

/// Whether the file is empty, or has an export of the same, complete or not. The next write begins at its beginning.
///
/// # Errors
/// If it cannot be read.
pub fn is_replaceable(mut file: &File, workspace: Option<&str>) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let text = next_line(&mut BufReader::new(file))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(text.is_empty() || parsed(&text).is_some_and(|line| begins(&line, workspace)))
}

fn next_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    reader.take(LINE_BYTES).read_until(b'\n', &mut text)?;
    Ok(text)
}

/// `None`: it is incomplete, or no line of an export.
fn parsed(text: &[u8]) -> Option<Line> {
    serde_json::from_slice(text).ok().filter(|_| text.ends_with(b"\n"))
}

/// Whether the file's last line is the end of an export: then invalid lines before it are damage, not the point where
/// the export was interrupted.
fn is_ended(mut file: &File) -> io::Result<bool> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
    let mut tail = Vec::new();
    file.take(END_BYTES).read_to_end(&mut tail)?;
    let before = tail.strip_suffix(b"\n").unwrap_or(&tail).iter().rposition(|byte| *byte == b'\n');
    Ok(matches!(parsed(&tail[before.map_or(0, |at| at + 1)..]), Some(Line::End { .. })))
}

/// Whether it is the first line of this export.
fn begins(line: &Line, of: Option<&str>) -> bool {
    match line {
        Line::Header { format, version, workspace, .. } => {
            format == FORMAT && *version == VERSION && workspace.as_deref() == of
        }
        _ => false,
    }
}

/// Lines from the first on.
#[derive(Clone, Default)]
struct Lines {
    hasher: blake3::Hasher,
    done: Exported,
    bytes: u64,
}

impl Lines {
    fn count(&mut self, text: &[u8]) {
        self.hasher.update(text);
        self.done.lines += 1;
        self.bytes += text.len() as u64;
    }
}

/// The content of a file.
struct ExportScan<'a> {
    all: Lines,
    /// The lines up to the last complete entity. Workspaces come after all others and are written again.
    whole: Lines,
    /// The hash of the entity whose lines are being read.
    of_entity: blake3::Hasher,
    check: Check<'a>,
}

impl ExportScan<'_> {
    /// Reads the file; returns whether it is the complete export.
    async fn read(&mut self, file: &File) -> Result<bool, TransferError> {
        let mut reader = BufReader::new(file);
        loop {
            let text = next_line(&mut reader)?;
            let line = parsed(&text);
            let number = self.all.done.lines + 1;
            let malformed = |what: &str| TransferError::Malformed { line: number, what: what.to_owned() };
            if number == 1 && !text.is_empty() && !line.as_ref().is_some_and(|line| begins(line, self.check.workspace))
            {
                let what = "the file does not begin as this export does; choose another file";
                return Err(malformed(what));
            }
            let Some(line) = line else {
                if is_ended(file)? {
                    return Err(malformed(
                        "the line is not part of an export, though the file has an end of export; choose another file",
                    ));
                }
                self.check.compare().await?;
                return Ok(false);
            };
            if let Line::End { lines, hash } = &line {
                if *lines != self.all.done.lines || *hash != self.all.hasher.finalize().to_hex().to_string() {
                    return Err(malformed("lines are missing or were changed; choose another file"));
                }
                if !reader.fill_buf()?.is_empty() {
                    let what = "there are lines after the end of the export; choose another file".to_owned();
                    return Err(TransferError::Malformed { line: number + 1, what });
                }
                self.all.count(&text);
                self.check.end().await?;
                return Ok(true);
            }
            self.all.count(&text);
            self.check.installation.note(&line)?;
            let Line::Commit(mut step) = line else { continue };
            step.sum_up(&mut self.of_entity).map_err(io::Error::from)?;
            if step.last {
                let sum = sum_of(&std::mem::take(&mut self.of_entity));
                if step.sum.is_some_and(|said| said != sum) {
                    let what = "lines of this entity are missing or were changed; choose another file".to_owned();
                    return Err(TransferError::Malformed { line: number, what });
                }
                let Name(entity) = step.entity;
                self.all.done.entities += 1;
                self.check.entity(entity, step.standing).await?;
                if entity.kind != Kind::Workspace {
                    self.whole = self.all.clone();
                }
            }
        }
    }
}

/// Compares a file with the store, in the order of both.
struct Check<'a> {
    store: &'a dyn Inventory,
    workspace: Option<&'a str>,
    /// The entities behind those in the file.
    listing: Listing<'a>,
    /// The file's content about the installation, which all comes before the first entity.
    installation: InstallationDigest,
    is_installation_compared: bool,
    /// Entities in both, with their recorded heads; not compared yet.
    waiting: Vec<(EntityKey, Option<Blob>)>,
    /// Workspaces that the file must have next, once it has all others.
    workspaces: Option<VecDeque<Address>>,
    /// The first difference; nothing is compared after that.
    moved: Option<Moved>,
}

impl<'a> Check<'a> {
    fn new(store: &'a dyn Inventory, workspace: Option<&'a str>) -> Self {
        let listing = Listing::new(store, workspace);
        let installation = InstallationDigest::default();
        let waiting = Vec::new();
        Self {
            store,
            workspace,
            listing,
            installation,
            is_installation_compared: false,
            waiting,
            workspaces: None,
            moved: None,
        }
    }

    /// The file has this entity next.
    async fn entity(&mut self, entity: EntityKey, fingerprint: Option<Blob>) -> Result<(), TransferError> {
        self.installation().await?;
        let is_next = match entity.kind {
            Kind::Workspace => self.is_next_workspace(entity).await?,
            _ => self.is_next(entity).await?,
        };
        if is_next {
            self.waiting.push((entity, fingerprint));
        }
        if self.waiting.len() < MAX_COMPARED_TOGETHER { Ok(()) } else { self.compare().await }
    }

    /// The file has no more entities.
    async fn end(&mut self) -> Result<(), TransferError> {
        self.installation().await?;
        self.compare().await?;
        self.rest().await?;
        if let Some(left) = self.workspaces.as_ref().and_then(VecDeque::front) {
            self.moved = self.moved.or(Some(Moved::Made(EntityKey::workspace(*left))));
        }
        Ok(())
    }

    async fn installation(&mut self) -> Result<(), TransferError> {
        if !self.is_installation_compared {
            let mut now = Out::new(io::sink());
            installation(self.store, self.workspace, &mut now).await?;
            self.is_installation_compared = true;
            self.moved = (!now.installation.is_still(&self.installation)).then_some(Moved::Installation);
        }
        Ok(())
    }

    /// Whether it is the store's next entity too.
    async fn is_next(&mut self, entity: EntityKey) -> Result<bool, TransferError> {
        while self.moved.is_none() {
            match self.listing.next().await? {
                Some(listed) if listed == entity => return Ok(true),
                Some(listed) => self.lacks(listed).await?,
                None => self.moved = Some(Moved::Gone(entity)),
            }
        }
        Ok(false)
    }

    async fn is_next_workspace(&mut self, entity: EntityKey) -> Result<bool, TransferError> {
        self.rest().await?;
        if self.moved.is_none() {
            match self.workspaces.as_mut().and_then(VecDeque::pop_front).map(EntityKey::workspace) {
                Some(next) if next == entity => return Ok(true),
                Some(next) => self.moved = Some(Moved::Made(next)),
                None => self.moved = Some(Moved::Gone(entity)),
            }
        }
        Ok(false)
    }

    /// Only workspaces may remain.
    async fn rest(&mut self) -> Result<(), TransferError> {
        while self.moved.is_none() && self.workspaces.is_none() {
            match self.listing.next().await? {
                Some(listed) => self.lacks(listed).await?,
                None => self.workspaces = Some(self.listing.workspaces.keys().copied().collect()),
            }
        }
        Ok(())
    }

    /// An entity that is listed and not in the file was created since, unless it does not exist.
    async fn lacks(&mut self, listed: EntityKey) -> Result<(), TransferError> {
        if retry_transient(RETRY_TIMEOUT, || self.store.load(listed, ReadLevel::Settled)).await?.is_some() {
            self.moved = Some(Moved::Made(listed));
        }
        Ok(())
    }

    /// Compares the waiting entities.
    async fn compare(&mut self) -> Result<(), TransferError> {
        let waiting = std::mem::take(&mut self.waiting);
        if self.moved.is_some() {
            return Ok(());
        }
        let store = self.store;
        let loads = waiting
            .iter()
            .map(|(entity, _)| retry_transient(RETRY_TIMEOUT, || store.load(*entity, ReadLevel::Settled)));
        let loaded = try_join_all(loads).await?;
        let both = waiting.iter().zip(loaded);
        let other =
            both.into_iter().find(|((_, fingerprint), loaded)| loaded.as_ref().map(fingerprint_of) != *fingerprint);
        self.moved = other.map(|((entity, _), _)| Moved::Written(*entity));
        Ok(())
    }
}
