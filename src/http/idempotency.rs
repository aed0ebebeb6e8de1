//! Idempotency keys in the form of commands.

use actors::directory::{CommandContext, KeyUse};
use actors::id::{Address, EntityKey, hash_parts};
use actors::limits::KEY_KEPT_MILLIS;
use actors::store::KeyHash;
use actors::workflows::claims;
use dashmap::DashMap;

use super::call::Call;
use super::context::RequestContext;
use crate::app::App;
use crate::json::Object;
use crate::problem::Problem;
use crate::wire::fingerprint::fingerprint;

/// How long an idempotency key is kept, in hours.
pub const KEY_HOURS: u64 = KEY_KEPT_MILLIS / (60 * 60 * 1000);

/// The scope of keys that belong to the workspace, which the API uses unless it names a smaller one.
const WORKSPACE: &str = "workspace";
/// The scope of keys of channel messages, together with the channel.
pub const CHANNEL_SCOPE: &str = "channel";
/// The scope of keys of messages to a known conversation, together with the conversation.
pub const CONVERSATION_SCOPE: &str = "conversation";

/// The scope of keys of a contact's messages: the channel and the contact, whichever conversation they lead to.
#[must_use]
pub fn contact_scope(channel: &str, contact: Address) -> String {
    format!("contact/{channel}/{contact}")
}

/// The hash under which a key is stored. The storing entity is part of its scope; `scope` is the rest.
#[must_use]
pub fn key_hash(scope: &str, key: &str) -> KeyHash {
    hash(&[scope.as_bytes(), key.as_bytes()])
}

/// The hash of a key that belongs to a workspace, the same wherever the key has its effect.
#[must_use]
pub fn workspace_key_hash(workspace: Address, key: &str) -> KeyHash {
    hash(&[WORKSPACE.as_bytes(), &workspace.0, key.as_bytes()])
}

fn hash(parts: &[&[u8]]) -> KeyHash {
    KeyHash(hash_parts(&mut blake3::Hasher::new(), parts.iter().copied()))
}

/// The context of a command: the request's trace and its idempotency key, if it has one, in the scope of the workspace.
#[must_use]
pub fn command_context(call: &Call, key: Option<&str>, body: &Object<'_>) -> CommandContext {
    let Call { caller, context, .. } = call;
    let key = key.map(|key| {
        let print = fingerprint(context.method.as_str(), context.path(), body);
        let home = claims::home(caller.address, key.as_bytes(), 0);
        KeyUse::across(workspace_key_hash(caller.address, key), print, home)
    });
    CommandContext { key, ..without_key(context) }
}

/// What an entity knows of a request's idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyState {
    /// Nothing, or the request has no key.
    Unused,
    /// The same request had its effect here.
    Repeat,
    /// Another request used the key.
    Reused,
}

/// Looks the request's key up without any effect.
pub(super) async fn key_state(
    app: &App,
    entity: EntityKey,
    command_context: CommandContext,
) -> Result<KeyState, Problem> {
    let Some(used) = command_context.key else { return Ok(KeyState::Unused) };
    Ok(match app.node().key(entity, used.hash).await? {
        None => KeyState::Unused,
        Some(row) if row.fingerprint == used.fingerprint => KeyState::Repeat,
        Some(_) => KeyState::Reused,
    })
}

/// Requests with idempotency keys that wait in this process, by key: the scope that is part of it is enough to tell all
/// entities apart. Bounded by the number of requests.
#[derive(Debug, Default)]
pub struct InProgress(DashMap<KeyHash, usize>);

/// One of the requests that wait, until this is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    all: &'a InProgress,
    key: KeyHash,
}

impl InProgress {
    /// Whether a request with this key waits.
    #[must_use]
    pub fn has(&self, key: KeyHash) -> bool {
        self.0.contains_key(&key)
    }

    /// Marks a request with this key as waiting, until the returned value is dropped.
    #[must_use]
    pub fn begin(&self, key: KeyHash) -> Waiting<'_> {
        *self.0.entry(key).or_default() += 1;
        Waiting { all: self, key }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.0.remove_if_mut(&self.key, |_, waiting| {
            *waiting = waiting.saturating_sub(1);
            *waiting == 0
        });
    }
}

/// 409: the first request with this key still waits for its answer, and this one does not wait any longer.
#[must_use]
pub fn in_progress() -> Problem {
    let detail = "another request with this idempotency key is still being processed; retry later";
    Problem::conflict("idempotency_in_progress", detail).retry_after(1)
}

/// The context of a command without idempotency key.
#[must_use]
pub fn without_key(context: &RequestContext) -> CommandContext {
    CommandContext { key: None, trace: Some((&context.trace).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_contacts_messages_is_found_by_every_release() {
        assert_eq!(contact_scope("shop", Address([0x0a; 10])), "contact/shop/0a0a0a0a0a0a0a0a0a0a");
    }
}
