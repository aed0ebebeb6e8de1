//! Directories for data that others on the machine must not read: messages, and the secrets of webhooks and models.

use std::fs::DirBuilder;
use std::io;
use std::path::Path;

/// Creates the directory, and those above it, for this user only; one that exists keeps its mode.
///
/// # Errors
/// If it cannot be created.
pub fn create(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}
