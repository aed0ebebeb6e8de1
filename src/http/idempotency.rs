//! Idempotency keys as commands carry them.

use actors::directory::{Circumstances, KeyUse};
use actors::store::KeyHash;

use super::context::RequestContext;
use crate::json::Object;
use crate::wire::fingerprint::fingerprint;

/// The hash under which a key is remembered. The entity that remembers it is part of its scope; `scope` is the rest.
#[must_use]
pub fn key_hash(scope: &str, key: &str) -> KeyHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(scope.len() as u64).to_le_bytes()).update(scope.as_bytes()).update(key.as_bytes());
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    KeyHash(hash)
}

/// What a command comes with: the request's trace and, where it has one, its idempotency key.
#[must_use]
pub fn circumstances(context: &RequestContext, scope: &str, key: Option<&str>, body: &Object<'_>) -> Circumstances {
    let key = key.map(|key| KeyUse {
        hash: key_hash(scope, key),
        fingerprint: fingerprint(context.method.as_str(), context.path(), body),
    });
    Circumstances { key, trace: Some((&context.trace).into()) }
}

/// What a command without idempotency key comes with.
#[must_use]
pub fn without_key(context: &RequestContext) -> Circumstances {
    Circumstances { key: None, trace: Some((&context.trace).into()) }
}
