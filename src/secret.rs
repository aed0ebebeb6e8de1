//! API keys and webhook secrets: made here, shown once.
//!
//! A key is stored only as its HMAC under the installation's pepper. It has 256 bits of entropy, so a slow hash would
//! protect nothing more and cost every request.

use actors::id::KeyId;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The prefix of every key, so that scanners for leaked secrets recognise one.
const KEY_PREFIX: &str = "tert_";
/// The prefix of every webhook secret (Standard Webhooks).
pub(crate) const WEBHOOK_PREFIX: &str = "whsec_";

/// The installation's secret under which keys are hashed.
#[derive(Clone)]
pub struct Pepper(
    /// Prepared once: half of a short HMAC's work is processing the key.
    Hmac<Sha256>,
);

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper(…)")
    }
}

/// The operating system's randomness is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("the operating system provides no randomness: {0}")]
pub struct NoRandomness(getrandom::Error);

/// 32 bytes of the operating system's randomness.
///
/// # Errors
///
/// [`NoRandomness`], on a machine on which no secrets can be generated.
pub fn random() -> Result<[u8; 32], NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

impl Pepper {
    /// The pepper with these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        // A shorter key equals a whole block padded with zeros (RFC 2104, section 2).
        let mut block = [0; 64];
        block[..bytes.len()].copy_from_slice(&bytes);
        Self(Hmac::new(&block.into()))
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The stored hash of a key.
    #[must_use]
    pub fn hash(&self, key: &str) -> [u8; 32] {
        self.mac(&[key.as_bytes()])
    }

    /// Whether `hash` is that of the key whose hash is `stored`, in constant time.
    #[must_use]
    pub fn same(hash: &[u8; 32], stored: &[u8; 32]) -> bool {
        hash.ct_eq(stored).into()
    }

    /// A key's text. With an idempotency key the secret part derives from it, so that a retry can be answered with the
    /// same bytes although the key is not stored; the idempotency key itself is stored only as a hash.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`].
    pub fn key(&self, id: KeyId, idempotency_key: Option<&str>) -> Result<String, NoRandomness> {
        let secret = match idempotency_key {
            Some(key) => self.mac(&[b"api-key\0", id.to_string().as_bytes(), b"\0", key.as_bytes()]),
            None => random()?,
        };
        Ok(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret)))
    }
}

/// A new secret that signs webhooks.
///
/// # Errors
///
/// [`NoRandomness`].
pub fn webhook_secret() -> Result<String, NoRandomness> {
    Ok(format!("{WEBHOOK_PREFIX}{}", STANDARD.encode(random()?)))
}

#[cfg(test)]
mod tests {
    use actors::clock::Millis;
    use actors::id::Address;

    use super::*;

    #[test]
    fn a_key_made_with_an_idempotency_key_is_made_again_by_a_retry() {
        let pepper = Pepper::new([7; 32]);
        let id = KeyId::new(Millis(1), Address([1; 10]));
        let first = pepper.key(id, Some("once")).unwrap();
        assert_eq!(first, pepper.key(id, Some("once")).unwrap());
        assert_ne!(first, pepper.key(id, Some("twice")).unwrap());
        assert_ne!(pepper.key(id, None).unwrap(), pepper.key(id, None).unwrap());
    }

    #[test]
    fn a_key_is_known_by_its_hash_under_the_same_pepper_only() {
        let one = Pepper::new([1; 32]);
        let other = Pepper::new([2; 32]);
        assert!(Pepper::same(&one.hash("k"), &one.hash("k")));
        assert!(!Pepper::same(&one.hash("k"), &one.hash("l")));
        assert!(!Pepper::same(&one.hash("k"), &other.hash("k")));
    }
}
