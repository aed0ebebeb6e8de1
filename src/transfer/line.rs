//! The lines of an export.

use actors::clock::Millis;
use actors::id::{EntityKey, half};
use actors::store::{Fingerprint, KeyEffect, KeyHash, KeyRow, SeqRange};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::promises::Promise;

/// The format name in the first line of every export.
pub(super) const FORMAT: &str = "tertulia-export";
/// The version of the lines; another one is refused.
pub(super) const VERSION: u32 = 1;

/// Bytes, as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blob(pub(super) Bytes);

impl Blob {
    /// Its bytes as a hash; `None` if the length is wrong.
    pub(super) fn hash(&self) -> Option<[u8; 16]> {
        self.0[..].try_into().ok()
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(|bytes| Self(bytes.into())).map_err(D::Error::custom)
    }
}

/// An entity, as base64 of workspace, kind and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name(pub(super) EntityKey);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Blob(bytes) = Blob::deserialize(deserializer)?;
        EntityKey::from_bytes(&bytes).map(Self).ok_or_else(|| D::Error::custom("this is not the name of an entity"))
    }
}

/// An idempotency key: its hash, the fingerprint, the first and the last event of its stored effect, when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key(Blob, Blob, u64, u64, u64);

impl Key {
    pub(super) fn new(hash: KeyHash, row: KeyRow) -> Self {
        let blob = |bytes: &[u8]| Blob(Bytes::copy_from_slice(bytes));
        let stored = row.effect.to_stored();
        Self(blob(&hash.0), blob(&row.fingerprint.0), stored.first, stored.last, row.at.0)
    }

    /// `None` if a hash has the wrong length.
    pub(super) fn read(&self) -> Option<(KeyHash, KeyRow)> {
        let effect = KeyEffect::from_stored(SeqRange::new(self.2, self.3));
        let row = KeyRow { fingerprint: Fingerprint(self.1.hash()?), effect, at: Millis(self.4) };
        Some((KeyHash(self.0.hash()?), row))
    }
}

/// One commit of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) entity: Name,
    /// Which commit, from 1.
    pub(super) number: u64,
    /// Records in order; `true`: an event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) records: Vec<(bool, Blob)>,
    /// The state after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<Blob>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<Key>,
    /// Table, key, value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rows: Vec<(u8, Blob, Blob)>,
    /// Entries of the workspace's lists: view, key, value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) views: Vec<(u8, Blob, Blob)>,
    /// The entity's alarm; only with its last commit, so that it does not ring before all commits exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) alarm: Option<u64>,
    /// Nothing of this entity follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) last: bool,
    /// With the last: a hash of the entity's position in its store, for resuming the export later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) standing: Option<Blob>,
    /// With the last: a hash of all lines of the entity, from [`Step::sum_up`]. A resumed export checks by it that they
    /// are complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sum: Option<Blob>,
}

impl Step {
    /// Takes this line into the hash of its entity's lines, without its own `sum`.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub(super) fn sum_up(&mut self, lines: &mut blake3::Hasher) -> serde_json::Result<()> {
        let sum = self.sum.take();
        lines.update(&serde_json::to_vec(self)?);
        self.sum = sum;
        Ok(())
    }
}

/// The hash of an entity's lines.
pub(super) fn sum_of(lines: &blake3::Hasher) -> Blob {
    Blob(Bytes::copy_from_slice(&half(&lines.finalize())))
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "camelCase")]
pub(super) enum Line {
    /// The first.
    Header {
        format: String,
        version: u32,
        /// `None`: everything.
        workspace: Option<String>,
        /// When the export was begun, in milliseconds since 1970.
        at: u64,
    },
    /// Rows of the installation.
    Installation {
        /// Table, key, value.
        rows: Vec<(u8, Blob, Blob)>,
        /// Its promises to retries; absent in exports of earlier builds.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        promises: Vec<Promise>,
    },
    /// A commit of an entity.
    Commit(Step),
    /// The last: how many lines precede it, and BLAKE3 over them, line ends included.
    End { lines: u64, hash: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_and_leave_out_what_is_empty() {
        let step = Step {
            entity: Name(EntityKey::INSTALLATION),
            number: 3,
            records: vec![(true, Blob(Bytes::from_static(b"\xff")))],
            state: None,
            keys: vec![Key::new(KeyHash([1; 16]), KeyRow::new(Fingerprint([2; 16]), SeqRange::upto(2), Millis(9)))],
            rows: Vec::new(),
            views: Vec::new(),
            alarm: None,
            last: true,
            standing: None,
            sum: None,
        };
        let text = serde_json::to_string(&Line::Commit(step.clone())).unwrap();
        assert!(text.starts_with(r#"{"line":"commit","entity":"AAAA"#) && !text.contains("rows"), "{text}");
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), Line::Commit(step));
    }
}
