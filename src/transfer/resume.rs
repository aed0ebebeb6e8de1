//! Going on with an export to a file that was broken off.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom};

use actors::clock::Millis;
use actors::store::inventory::Inventory;

use super::TransferError;
use super::export::{Exported, Out, entities, export};
use super::import::LINE_BYTES;
use super::line::{FORMAT, Line, VERSION};

/// What a file holds that need not be written again.
struct Kept {
    out: Out<io::Sink>,
    /// How long that is; 0: nothing.
    bytes: u64,
    /// The export was not broken off.
    ended: bool,
}

/// Writes an export to `file`. What the file holds of the same export is kept, up to the last entity that is whole.
///
/// # Errors
/// See [`TransferError`]; a file that holds anything else is left as it is.
pub async fn export_to_file(
    store: &dyn Inventory,
    workspace: Option<&str>,
    now: Millis,
    mut file: &File,
) -> Result<Exported, TransferError> {
    let Kept { out, bytes, ended } = kept(file, workspace)?;
    if ended {
        return Ok(out.done);
    }
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes))?;
    let to = BufWriter::new(file);
    if bytes == 0 {
        return export(store, workspace, now, to).await;
    }
    let Out { hasher, done, newest, workspaces, .. } = out;
    entities(store, workspace, Out { to, hasher, done, newest, workspaces }).await
}

fn kept(file: &File, workspace: Option<&str>) -> Result<Kept, TransferError> {
    let mut reader = BufReader::new(file);
    let mut kept = Kept { out: Out::new(io::sink()), bytes: 0, ended: false };
    let mut pending: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut text = Vec::new();
        reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut text)?;
        let line = serde_json::from_slice::<Line>(&text).ok().filter(|_| text.ends_with(b"\n"));
        let is_first = kept.bytes == 0 && pending.is_empty();
        if is_first && !text.is_empty() && !line.as_ref().is_some_and(|line| begins(line, workspace)) {
            let what = "the file holds something else than the beginning of this export; name another one".to_owned();
            return Err(TransferError::Malformed { line: 1, what });
        }
        let Some(line) = line else { return Ok(kept) };
        pending.push(text);
        let whole = match line {
            Line::Commit(step) => step.last.then_some(step.entity.0),
            Line::End { .. } => {
                kept.ended = true;
                None
            }
            Line::Header { .. } | Line::Installation { .. } => None,
        };
        if whole.is_some() || kept.ended {
            for text in pending.drain(..) {
                kept.bytes += text.len() as u64;
                kept.out.count(&text);
            }
        }
        if kept.ended {
            kept.out.done.resumed = kept.out.done.entities;
            return Ok(kept);
        }
        if let Some(entity) = whole {
            kept.out.entity(entity);
            kept.out.done.resumed += 1;
        }
    }
}

/// Whether it is the first line of this export.
fn begins(line: &Line, of: Option<&str>) -> bool {
    match line {
        Line::Header { format, version, workspace, .. } => {
            format == FORMAT && *version == VERSION && workspace.as_deref() == of
        }
        _ => false,
    }
}
