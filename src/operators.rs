//! The operators' commands that work on the store itself, without a server.

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::agent::NoModels;
use actors::attachment::Attachment;
use actors::clock::{Clock as _, SystemClock};
use actors::conversation::review::SYSTEM;
use actors::directory::Circumstances;
use actors::id::{EntityKey, KeyId, Kind};
use actors::key::{ApiKey, Principal, PrincipalKind, Scope};
use actors::node::{Node, stored_state};
use actors::registry::{Command, Expect};
use actors::store::inventory::Inventory;
use actors::store::{Cause, KeyRange, StoreError};
use actors::tables::{KEYS_BY_HASH, KEYS_BY_ID, WORKSPACES};
use actors::workspace::Workspace;
use bytes::Bytes;
use schema::embedded;
use tokio::time::{Duration, Instant};

use crate::bootstrap;
use crate::config::{AttachmentsPlace, Config, StoreKind};
use crate::files::{FileStore, FilesError, Written};
use crate::keys;
use crate::secret::{NoRandomness, Pepper};
use crate::stores::{self, StoresError};
use crate::transfer::{self, Found, TransferError};
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::time;

/// Keys read at once.
const KEYS_AT_ONCE: usize = 500;
/// Entities named at once.
const ENTITIES_AT_ONCE: usize = 500;
/// Faults of attachments that are listed; more are only counted.
const FAULTS_LISTED: usize = 100;
/// How long the store may take to close.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no store in the data directory.
    #[error("{0} holds no store; start the server once, or name another --data-dir")]
    NoStore(String),
    /// A key that nobody has seen is in the store.
    #[error("the key {id} was made and could not be shown, nor revoked ({revoking}); revoke it")]
    Unseen {
        /// The key's id.
        id: String,
        /// Why it is still there.
        revoking: Box<OperatorError>,
    },
    /// The store was not opened.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// The store was not opened for verification.
    #[error("the store was not opened: {0}")]
    Open(#[from] embedded::OpenError),
    /// Only the embedded store is verified from outside.
    #[error(
        "a CQL cluster checks what it keeps by itself (`nodetool scrub`, `nodetool repair`); choose --store embedded"
    )]
    NotEmbedded,
    /// The store has not seen its first start.
    #[error("this store has no installation yet; start the server once")]
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
    /// A value is not what it must be.
    #[error("{0}")]
    Invalid(String),
    /// No secret can be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The answer could not be written.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
    /// What is to be read cannot be.
    #[error("{} cannot be read: {source}", path.display())]
    Unread {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An export or an import ended early.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The attachments cannot be had.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The store is damaged; everything that was found is named.
    #[error("{0}")]
    Damaged(String),
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What people call it; 1 to 255 characters.
    pub name: String,
    /// Names of scopes; at least one.
    pub scopes: Vec<String>,
    /// Where it is valid.
    pub workspace: String,
    /// What its principal is.
    pub kind: PrincipalKind,
    /// Whose it is; `None`: the key's own id.
    pub principal: Option<String>,
}

/// Makes a key and hands it to `show` once it is stored; one that cannot be shown is revoked. It is valid at once, and
/// the server must not be running: the store has one user at a time.
///
/// # Errors
/// See [`OperatorError`].
pub async fn create_key(
    config: &Config,
    new: NewKey,
    show: impl FnOnce(&str) -> io::Result<()>,
) -> Result<(), OperatorError> {
    let bounds = |what: &str, text: &str| match text.chars().count() {
        1..=MAX_NAME_CHARS => Ok(()),
        _ => Err(OperatorError::Invalid(format!("{what} must have 1 to {MAX_NAME_CHARS} characters"))),
    };
    bounds("--name", &new.name)?;
    if let Some(principal) = &new.principal {
        bounds("--principal-id", principal)?;
        if principal == SYSTEM {
            let what = format!("--principal-id must not be {SYSTEM}: that decides where nobody has in time");
            return Err(OperatorError::Invalid(what));
        }
    }
    let scopes = scopes(&new.scopes)?;
    let (node, pepper) = open(config).await?;
    let made = async {
        let (text, key) = store_key(&node, &pepper, scopes, new).await?;
        if let Err(unseen) = show(&text) {
            // Nobody will ever know it.
            let revoked = change(&node, Command { expected: Vec::new(), changes: keys::delete(&key).into() }).await;
            let still_there = |why| OperatorError::Unseen { id: key.id.to_string(), revoking: Box::new(why) };
            return Err(revoked.err().map_or_else(|| unseen.into(), still_there));
        }
        Ok(())
    };
    let made = made.await;
    close(&node).await;
    made
}

async fn store_key(
    node: &Arc<Node>,
    pepper: &Pepper,
    scopes: Vec<Scope>,
    new: NewKey,
) -> Result<(String, ApiKey), OperatorError> {
    let workspace = Bytes::copy_from_slice(new.workspace.as_bytes());
    let workspace = node.configured::<Workspace>(EntityKey::INSTALLATION, WORKSPACES, &workspace).await?;
    let workspace = workspace.ok_or(OperatorError::NoWorkspace(new.workspace))?;
    let id = keys::new_id(node);
    let text = pepper.key(id, None)?;
    let key = ApiKey {
        id,
        name: new.name,
        scopes,
        workspace: workspace.id.clone(),
        principal: Principal { kind: new.kind, id: new.principal.unwrap_or_else(|| id.to_string()) },
        hash: pepper.hash(&text),
        created_at: node.now(),
    };
    let expected = vec![Expect::new(KEYS_BY_HASH, &keys::hash_key(&key.hash), None)];
    change(node, Command { expected, changes: keys::put(&key).into() }).await?;
    Ok((text, key))
}

fn scopes(names: &[String]) -> Result<Vec<Scope>, OperatorError> {
    let mut scopes = Vec::new();
    for name in names {
        let Some(scope) = Scope::ALL.into_iter().find(|scope| scope.name() == name.trim()) else {
            let known = Scope::ALL.map(Scope::name).join(", ");
            return Err(OperatorError::Invalid(format!("{name:?} is no scope; allowed: {known}")));
        };
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.is_empty() { Err(OperatorError::Invalid("a key needs a scope".to_owned())) } else { Ok(scopes) }
}

/// Every key of the installation, one a line: id, workspace, scopes, principal, creation, name; never the key itself.
///
/// # Errors
/// See [`OperatorError`].
pub async fn list_keys(config: &Config) -> Result<String, OperatorError> {
    let (node, _) = open(config).await?;
    let keys = every_key(&node).await;
    close(&node).await;
    let mut out = String::new();
    for key in keys? {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let kind = key.principal.kind.name();
        let made = time::format(key.created_at);
        // Writing to a string cannot fail. Names are the clients' own, so what could break the line is escaped.
        let _ = writeln!(
            out,
            "{}\t{}\t{}\t{kind}:{}\t{}\t{}",
            key.id,
            key.workspace,
            scopes.join(","),
            key.principal.id.escape_debug(),
            made.as_str(),
            key.name.escape_debug()
        );
    }
    Ok(out)
}

async fn every_key(node: &Node) -> Result<Vec<ApiKey>, OperatorError> {
    let mut keys = Vec::new();
    let mut pages = node.pages(EntityKey::INSTALLATION, KEYS_BY_ID, KeyRange::default(), KEYS_AT_ONCE);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            keys.extend(keys::of_row(node, &row.value).await?.map(|(_, key)| key));
        }
    }
    Ok(keys)
}

/// Revokes the key with this id, of whichever workspace.
///
/// # Errors
/// See [`OperatorError`].
pub async fn revoke_key(config: &Config, id: &str) -> Result<(), OperatorError> {
    let id = KeyId::parse(id).ok_or_else(|| OperatorError::NoKey(id.to_owned()))?;
    let (node, _) = open(config).await?;
    let revoked = async {
        let keys = every_key(&node).await?;
        let key = keys.iter().find(|key| key.id == id).ok_or_else(|| OperatorError::NoKey(id.to_string()))?;
        change(&node, Command { expected: Vec::new(), changes: keys::delete(key).into() }).await
    };
    let revoked = revoked.await;
    close(&node).await;
    revoked
}

async fn change(node: &Arc<Node>, command: Command) -> Result<(), OperatorError> {
    let done = node.registry(EntityKey::INSTALLATION, command, Circumstances::default()).await;
    done.map(|_| ()).map_err(|refusal| OperatorError::Refused(refusal.into()))
}

/// Opens the store of an installation that has seen its first start.
async fn open(config: &Config) -> Result<(Arc<Node>, Pepper), OperatorError> {
    if config.store == StoreKind::Embedded {
        there(&config.data_dir)?;
    }
    // A store that fails says so in the answer to the one change that is asked of it.
    let store = stores::open(config, Box::new(|_| {})).await?;
    let (clock, entropy) = (Arc::new(SystemClock), crate::serve::entropy()?);
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
    node.drain(Instant::now() + CLOSED_WITHIN).await;
}

/// Opening would make a store where there is none, which is not what somebody who looks for one wants. Whatever there
/// is of one, the engine's files or the mark of what was durable, is looked at by the store.
fn there(dir: &Path) -> Result<(), OperatorError> {
    let has_files = std::fs::read_dir(dir.join("engine")).is_ok_and(|mut entries| entries.next().is_some());
    if has_files || dir.join("HEAD").exists() { Ok(()) } else { Err(OperatorError::NoStore(dir.display().to_string())) }
}

/// Writes a workspace, or everything, as JSON lines: to a file, where an export that was broken off goes on if nothing
/// in it has moved and else begins anew, or to standard output. A whole one from which the store has gone on is
/// refused; with `anew` it is replaced, once the new one is whole. What was written, in words.
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
        Found::Nothing | Found::Part => String::new(),
        Found::Past(moved) => format!("the file held a part of another moment ({moved}), so it was begun anew\n"),
        Found::Whole => {
            return Ok(format!("the file is as it was: it holds all {entities} entities as they are now\n"));
        }
    };
    Ok(format!(
        "{before}exported {entities} entities, {resumed} of them by an earlier export, in {lines} lines; {FILES_APART}\n"
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
    // A pipe or a device holds no earlier export to go on with, and must not be read, or it is its own reader.
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

/// Exports beside `path` and, once that is whole, in its place: until then there is the earlier one.
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

/// Whether a file may be written over by this export.
fn is_ours(file: &File, path: &Path, workspace: Option<&str>) -> Result<(), OperatorError> {
    if transfer::is_replaceable(file, workspace)? {
        return Ok(());
    }
    let what = format!("{} holds something else than this export; name another file", path.display());
    Err(OperatorError::Invalid(what))
}

/// A file's name is durable once its directory is.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.canonicalize()?.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// What an export leaves out.
const FILES_APART: &str = "the bytes of attachments are not among them and are copied apart";

/// Opens a file for reading and writing that only its owner may read: it will hold secrets. It is this process's alone.
fn secret_file(path: &Path) -> Result<File, OperatorError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(OperatorError::Invalid(format!("another export writes to {} right now", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Does what an export says, from a file or from standard input, as far as it is not done; what was done, in words.
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
    Ok(format!("imported {entities} entities: {commits} commits now, {skipped} were there; {FILES_APART}\n"))
}

/// Reads everything in the store, and the attachments where they are in a directory, and compares it with what was
/// written; what there is, in words.
///
/// # Errors
/// [`OperatorError::Damaged`] with every fault, a line each; what keeps the store from being opened.
pub async fn verify(config: &Config) -> Result<String, OperatorError> {
    if config.store == StoreKind::Cql {
        return Err(OperatorError::NotEmbedded);
    }
    let dir = &config.data_dir;
    there(dir)?;
    let report = embedded::verify(dir)?;
    // Which files there must be is known from a store that is sound.
    let files = if report.is_clean() { verify_files(config).await? } else { VerifiedFiles::default() };
    let fault_count = report.fault_count + files.fault_count;
    if fault_count == 0 {
        let embedded::Report { batches, entities, commits, events, rows, .. } = report;
        return Ok(format!(
            "{} is sound: {batches} batches, {entities} entities, {commits} commits, {events} events, {rows} rows, \
             {} attachments\n",
            dir.display(),
            files.sound
        ));
    }
    let faults: String = report.faults.iter().map(fault_line).chain(files.faults).collect();
    Err(OperatorError::Damaged(format!("{} is damaged: {fault_count} faults{faults}", dir.display())))
}

fn fault_line(fault: &embedded::Fault) -> String {
    let entity = fault.entity.map_or_else(String::new, |entity| format!("{entity:?}: "));
    format!("\n{entity}{}", fault.what)
}

/// What was found of attachments.
#[derive(Default)]
struct VerifiedFiles {
    /// How many are as they were written.
    sound: u64,
    /// What is wrong with the first of the others, a line each.
    faults: Vec<String>,
    /// How many others there are.
    fault_count: u64,
}

/// Compares the attachments with what was written. A bucket checks what it keeps by itself, and is not read.
async fn verify_files(config: &Config) -> Result<VerifiedFiles, OperatorError> {
    let mut found = VerifiedFiles::default();
    let AttachmentsPlace::Directory(_) = &config.attachments.place else { return Ok(found) };
    let kept = FileStore::open(&config.attachments)?;
    let store = stores::open(config, Box::new(|_| {})).await?;
    let verified = async {
        let mut after = None;
        loop {
            let entities = store.entities(after, ENTITIES_AT_ONCE).await?;
            for &entity in entities.iter().filter(|entity| entity.kind == Kind::Attachment) {
                let Some(state) = stored_state::<Attachment>(&*store, entity).await? else { continue };
                let Some(file) = state.ready() else { continue };
                let Err(error) = kept.check(&file.storage_key, Written::of(file)).await else {
                    found.sound += 1;
                    continue;
                };
                found.fault_count += 1;
                if found.faults.len() < FAULTS_LISTED {
                    found.faults.push(format!("\n{}: {}: {error}", state.id, file.storage_key));
                }
            }
            match entities.last() {
                Some(last) if entities.len() == ENTITIES_AT_ONCE => after = Some(*last),
                _ => return Ok(found),
            }
        }
    };
    let verified = verified.await;
    store.close().await;
    verified
}
