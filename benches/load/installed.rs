//! Finds installed programs of the peers.

use std::path::PathBuf;

/// The program that an environment variable names, or the one on the path.
pub(crate) fn find(variable: &str, program: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).or_else(|| on_path(program)).filter(|path| path.is_file())
}

/// The program on the path.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join(program)).find(|path| path.is_file())
}
