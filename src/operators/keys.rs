//! `tertulia keys`: API keys of an installation whose server is not running.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use actors::conversation::review::SYSTEM;
use actors::id::{EntityKey, KeyId};
use actors::key::{ApiKey, Principal, PrincipalKind, Scope};
use actors::node::Node;
use actors::registry::{Command, Expect};
use actors::store::KeyRange;
use actors::tables::{KEYS_BY_HASH, KEYS_BY_ID};

use super::{OperatorError, change, close, open};
use crate::config::Config;
use crate::keys;
use crate::secret::Pepper;
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::time;

/// Keys read at once.
const KEYS_AT_ONCE: usize = 500;

/// A key to be created.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its display name; 1 to 255 characters.
    pub name: String,
    /// Names of scopes; at least one.
    pub scopes: Vec<String>,
    /// The workspace in which it is valid.
    pub workspace: String,
    /// The type of its principal.
    pub kind: PrincipalKind,
    /// The id of its principal; `None`: the key's own id.
    pub principal: Option<String>,
}

/// Creates a key and passes it to `show` once it is stored; one that cannot be shown is revoked. It is valid at once,
/// and the server must not be running: the store has one user at a time.
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
            let what = format!("--principal-id must not be {SYSTEM}: it is reserved for automatic decisions");
            return Err(OperatorError::Invalid(what));
        }
    }
    let scopes = scopes(&new.scopes)?;
    let (node, pepper) = open(config).await?;
    let made = async {
        let (text, key) = store_key(&node, &pepper, scopes, new).await?;
        if let Err(unseen) = show(&text) {
            // The key will never be known.
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
    let workspace = node.workspace(&new.workspace).await?.ok_or(OperatorError::NoWorkspace(new.workspace))?;
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
            return Err(OperatorError::Invalid(format!("unknown scope {name:?}; allowed: {known}")));
        };
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.is_empty() {
        Err(OperatorError::Invalid("a key requires at least 1 scope".to_owned()))
    } else {
        Ok(scopes)
    }
}

/// Every key of the installation, one per line: id, workspace, scopes, principal, creation, name; never the key itself.
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
        // Writing to a string cannot fail. Names are the clients' own, so characters that could break the line are
        // escaped.
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

/// Revokes the key with this id, of any workspace.
///
/// # Errors
/// See [`OperatorError`].
pub async fn revoke_key(config: &Config, id: &str) -> Result<(), OperatorError> {
    let id = KeyId::parse(id).ok_or_else(|| OperatorError::NoKey(id.to_owned()))?;
    let (node, _) = open(config).await?;
    let revoked = async {
        let found = keys::of_any_workspace(&node, id).await?;
        let (_, key) = found.ok_or_else(|| OperatorError::NoKey(id.to_string()))?;
        change(&node, Command { expected: Vec::new(), changes: keys::delete(&key).into() }).await
    };
    let revoked = revoked.await;
    close(&node).await;
    revoked
}
