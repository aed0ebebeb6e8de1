//! Fetched files, kept between runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of all kept files.
pub(crate) fn dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("tertulia-bed")
}

/// The folder `name`. If it does not exist, `fetch` creates it: in a temporary folder that it is given, and it returns
/// the folder to keep.
pub(crate) fn kept(name: &str, fetch: impl FnOnce(&Path) -> Result<PathBuf, String>) -> Result<PathBuf, String> {
    let kept = dir().join(name);
    if kept.is_dir() {
        return Ok(kept);
    }
    let place = kept.with_extension(format!("part{}", std::process::id()));
    let failed = |error: io::Error| format!("{}: {error}", place.display());
    fs::create_dir_all(&place).map_err(failed)?;
    // In one step, so that an interrupted fetch leaves nothing that looks complete.
    let moved = fetch(&place).and_then(|fetched| fs::rename(fetched, &kept).map_err(failed));
    // The temporary folder itself may have been moved.
    _ = fs::remove_dir_all(&place);
    // Another process may have been faster.
    if kept.is_dir() { Ok(kept) } else { moved.map(|()| kept) }
}
