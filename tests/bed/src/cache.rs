//! What was fetched, kept between runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of everything that is kept.
pub(crate) fn dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("tertulia-bed")
}

/// The folder `name`. Where it is not there, `fetch` makes it: in a place of its own that it is given, of which it
/// returns the folder to keep.
pub(crate) fn kept(name: &str, fetch: impl FnOnce(&Path) -> Result<PathBuf, String>) -> Result<PathBuf, String> {
    let kept = dir().join(name);
    if kept.is_dir() {
        return Ok(kept);
    }
    let place = kept.with_extension(format!("part{}", std::process::id()));
    let failed = |error: io::Error| format!("{}: {error}", place.display());
    fs::create_dir_all(&place).map_err(failed)?;
    // In one step, so that a fetch that is broken off leaves nothing that looks whole.
    let moved = fetch(&place).and_then(|fetched| fs::rename(fetched, &kept).map_err(failed));
    // The place itself may be what was kept.
    _ = fs::remove_dir_all(&place);
    // Somebody else may have been faster.
    if kept.is_dir() { Ok(kept) } else { moved.map(|()| kept) }
}
