//! An inspection of the engine's manifests before the engine opens them.
//!
//! Each keyspace has a file `current`, which names its newest manifest and that manifest's checksum. The engine does
//! not compare the two, and it deletes tables that the manifest does not name: a flipped bit could cost whole tables.
//! Where the engine panics on damage, it panics twice, which ends the process without a named error.

use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::journal::Fault;
use super::layout::Fields;

/// The engine's own keyspace and our four.
const KEYSPACES: usize = 5;
pub(super) const KEYSPACES_DIR: &str = "keyspaces";
const CURRENT: &str = "current";

/// Inspects the manifest of every keyspace in the engine's directory. With `complete`, every keyspace must be there.
pub(super) fn inspect(engine_dir: &Path, complete: bool) -> Result<(), Fault> {
    let mut sound = 0;
    for entry in std::fs::read_dir(engine_dir.join(KEYSPACES_DIR))? {
        let dir = entry?.path();
        match std::fs::read(dir.join(CURRENT)) {
            Ok(current) if matches(&dir, &current)? => sound += 1,
            Ok(_) => return Err(Fault::Damaged(format!("the manifest in {} is not the newest one", dir.display()))),
            // Its creation was interrupted; the engine removes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound || !dir.is_dir() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if complete && sound < KEYSPACES {
        return Err(Fault::Damaged(format!("{sound} of {KEYSPACES} keyspaces are in {}", engine_dir.display())));
    }
    Ok(())
}

/// Whether `current` names a manifest in `dir` with the recorded checksum.
fn matches(dir: &Path, current: &[u8]) -> io::Result<bool> {
    let mut fields = Fields(current);
    let (Some(version), Some(sum), Some(0), true) =
        (fields.u64(), fields.bytes().map(u128::from_le_bytes), fields.u8(), fields.end())
    else {
        return Ok(false);
    };
    match std::fs::read(dir.join(format!("v{version}"))) {
        Ok(manifest) => Ok(xxh3_128(&manifest) == sum),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
