//! The first start on an empty store: creates what the first request needs.
//!
//! Three commits, each refused if another process was faster, and each harmless to repeat: the installation's secret,
//! the workspace `default` and its admin key; an agent and two channels for first steps; and last the mark that the
//! first start is over. With the mark nothing is created again: a deleted channel stays deleted.

use std::io;
use std::sync::Arc;

use actors::agent::builtin::Builtin;
use actors::agent::{Agent, Provider};
use actors::channel::{Channel, ChannelKind};
use actors::clock::Millis;
use actors::codec;
use actors::conversation::BusyPolicy;
use actors::directory::{CommandContext, Refusal};
use actors::id::EntityKey;
use actors::key::{ApiKey, Principal, PrincipalKind, Scope};
use actors::node::Node;
use actors::registry::{Command, Expect, RowChange};
use actors::store::{Cause, StoreError};
use actors::tables::{AGENTS, CHANNELS, KEYS_BY_HASH, SETTINGS, WORKSPACES};
use actors::workspace::{self, Workspace, address_of};
use bytes::Bytes;

use crate::keys;
use crate::secret::{NoRandomness, Pepper, random, webhook_secret};

mod places;

pub(crate) use places::PLACED;

/// The secret under which keys are hashed.
pub(crate) const PEPPER: &[u8] = b"pepper";
/// The hash of the admin key, until the first start is over.
const FIRST_KEY: &[u8] = b"first_key";
/// The mark that the first start is over.
pub(crate) const BOOTSTRAPPED: &[u8] = b"bootstrapped";
/// How often another process may be faster. Each time it has made a commit, and there are three.
const MAX_ATTEMPTS: usize = 8;

/// Why an installation could not be created or read.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The store failed.
    #[error("cannot read the installation: {0}")]
    Store(#[from] StoreError),
    /// A commit was not stored.
    #[error("cannot create the installation: {0}")]
    Refused(#[source] Cause),
    /// No secret can be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The generated key could not be shown; the next start makes another one.
    #[error("cannot print the generated key: {0}")]
    Announce(#[source] io::Error),
    /// Other processes kept creating the same installation.
    #[error("other processes are creating this installation; start again")]
    Contended,
}

impl BootstrapError {
    /// Whether it may pass by itself.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Refused(_) | Self::Contended => true,
            Self::NoRandomness(_) | Self::Announce(_) => false,
        }
    }
}

/// One step's outcome.
enum Step {
    Done,
    /// Another process was faster: check again.
    Overtaken,
}

/// Creates the installation if there is none, and returns its secret.
///
/// On the first start the admin key is `configured` if there is one, else it is generated and passed to `announce`
/// before the first start counts as over: if the process ends before that, the next start replaces the unseen key. On
/// later starts `configured` has no effect.
///
/// # Errors
/// See [`BootstrapError`].
pub async fn run(
    node: &Arc<Node>,
    configured: Option<&str>,
    mut announce: impl FnMut(&str) -> io::Result<()>,
) -> Result<Pepper, BootstrapError> {
    for _ in 0..MAX_ATTEMPTS {
        if setting(node, BOOTSTRAPPED).await?.is_some() {
            places::give(node).await?;
            let missing = || StoreError::Corrupt("the installation has no pepper".into());
            return Ok(pepper(node).await?.ok_or_else(missing)?);
        }
        let (pepper, key, step) = installation(node, configured).await?;
        if let Step::Overtaken = step {
            continue;
        }
        if let Step::Overtaken = first_workspace(node).await? {
            continue;
        }
        if configured.is_none() {
            announce(&key).map_err(BootstrapError::Announce)?;
        }
        let hash = Bytes::copy_from_slice(&pepper.hash(&key));
        let expected = vec![Expect::new(SETTINGS, BOOTSTRAPPED, None), Expect::new(SETTINGS, FIRST_KEY, Some(hash))];
        let mark = Bytes::copy_from_slice(&node.now().0.to_be_bytes());
        let changes = vec![RowChange::put(SETTINGS, BOOTSTRAPPED, &mark), RowChange::delete(SETTINGS, FIRST_KEY)];
        if let Step::Done = submit(node, EntityKey::INSTALLATION, Command { expected, changes }).await? {
            // An earlier build may have begun the first start, or an import may have come before it.
            places::give(node).await?;
            return Ok(pepper);
        }
    }
    Err(BootstrapError::Contended)
}

/// The secret of an installation; `None` if there is no installation yet.
///
/// # Errors
/// `StoreError` if the store, or the stored data, cannot be read.
pub async fn pepper(node: &Node) -> Result<Option<Pepper>, StoreError> {
    let Some(bytes) = setting(node, PEPPER).await? else { return Ok(None) };
    let bytes: [u8; 32] = bytes.as_ref().try_into().map_err(|_| StoreError::Corrupt("a pepper has 32 bytes".into()))?;
    Ok(Some(Pepper::new(bytes)))
}

async fn setting(node: &Node, name: &'static [u8]) -> Result<Option<Bytes>, StoreError> {
    node.row(EntityKey::INSTALLATION, SETTINGS, Bytes::from_static(name)).await
}

async fn submit(node: &Arc<Node>, entity: EntityKey, command: Command) -> Result<Step, BootstrapError> {
    match node.registry(entity, command, CommandContext::default()).await {
        Ok(_) => Ok(Step::Done),
        Err(Refusal::Rejected(_)) => Ok(Step::Overtaken),
        Err(refusal) => Err(BootstrapError::Refused(refusal.into())),
    }
}

/// The first commit: the pepper, the workspace, and the admin key, which replaces that of an unfinished start.
async fn installation(node: &Arc<Node>, configured: Option<&str>) -> Result<(Pepper, String, Step), BootstrapError> {
    let workspace_row =
        node.row(EntityKey::INSTALLATION, WORKSPACES, Bytes::from_static(workspace::DEFAULT.as_bytes())).await?;
    let pepper_row = setting(node, PEPPER).await?;
    let left = setting(node, FIRST_KEY).await?;
    let now = node.now();
    let mut expected = vec![
        Expect::new(SETTINGS, BOOTSTRAPPED, None),
        Expect::new(SETTINGS, PEPPER, pepper_row.clone()),
        Expect::new(SETTINGS, FIRST_KEY, left.clone()),
        Expect::new(WORKSPACES, workspace::DEFAULT.as_bytes(), workspace_row.clone()),
    ];
    let mut changes = Vec::new();
    let pepper = match pepper(node).await? {
        Some(pepper) => pepper,
        None => {
            let bytes = random()?;
            changes.push(RowChange::put(SETTINGS, PEPPER, &Bytes::copy_from_slice(&bytes)));
            Pepper::new(bytes)
        }
    };
    if workspace_row.is_none() {
        let workspace = Workspace { id: workspace::DEFAULT.to_owned(), name: "Default".to_owned(), created_at: now };
        changes.push(RowChange::put(WORKSPACES, workspace::DEFAULT.as_bytes(), &codec::encode(&workspace)));
    }
    if let Some(hash) = left
        && let Some((bytes, key)) = keys::of_row(node, &hash).await?
    {
        expected.push(Expect::new(KEYS_BY_HASH, &keys::hash_key(&key.hash), Some(bytes)));
        changes.extend(keys::delete(&key));
    }
    let id = keys::new_id(node);
    let text = configured.map_or_else(|| pepper.key(id, None), |key| Ok(key.to_owned()))?;
    let key = ApiKey {
        id,
        name: "admin".to_owned(),
        scopes: Scope::ALL.to_vec(),
        workspace: workspace::DEFAULT.to_owned(),
        principal: Principal { kind: PrincipalKind::Agent, id: "admin".to_owned() },
        hash: pepper.hash(&text),
        created_at: now,
    };
    changes.extend(keys::put(&key));
    changes.push(RowChange::put(SETTINGS, FIRST_KEY, &Bytes::copy_from_slice(&key.hash)));
    let step = submit(node, EntityKey::INSTALLATION, Command { expected, changes }).await?;
    Ok((pepper, text, step))
}

/// The second commit: an agent and channels to try.
async fn first_workspace(node: &Arc<Node>) -> Result<Step, BootstrapError> {
    let entity = EntityKey::workspace(address_of(workspace::DEFAULT));
    let now = node.now();
    let rows = [
        (AGENTS, "echo", codec::encode(&echo(now))),
        (CHANNELS, "demo", codec::encode(&channel("demo", "Demo", ChannelKind::Human, now)?)),
        (CHANNELS, "demo-api", codec::encode(&channel("demo-api", "Demo API", ChannelKind::Api, now)?)),
    ];
    let mut expected = Vec::new();
    let mut changes = Vec::new();
    for (table, id, value) in rows {
        // An unfinished start may have done this already.
        if node.row(entity, table, Bytes::from_static(id.as_bytes())).await?.is_none() {
            expected.push(Expect::new(table, id.as_bytes(), None));
            changes.push(RowChange::put(table, id.as_bytes(), &value));
        }
    }
    if changes.is_empty() { Ok(Step::Done) } else { submit(node, entity, Command { expected, changes }).await }
}

fn echo(now: Millis) -> Agent {
    Agent::new("echo", "Echo", Provider::Builtin(Builtin::default()), now)
}

fn channel(id: &str, name: &str, kind: ChannelKind, now: Millis) -> Result<Channel, NoRandomness> {
    Ok(Channel {
        id: id.to_owned(),
        name: name.to_owned(),
        kind,
        agent: (kind == ChannelKind::Api).then(|| "echo".to_owned()),
        busy_policy: BusyPolicy::default(),
        enabled: true,
        webhook_url: None,
        webhook_secret: webhook_secret()?,
        retired_secret: None,
        routed_at: None,
        retired_earlier: None,
        life: None,
        review_defaults: None,
        review_seconds: None,
        created_at: now,
        updated_at: None,
    })
}
