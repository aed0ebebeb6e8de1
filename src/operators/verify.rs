//! `tertulia verify`: checks that the stored data is what was written.

use actors::attachment::Attachment;
use actors::id::Kind;
use actors::node::stored_state;
use schema::embedded;

use super::{OperatorError, there};
use crate::config::{AttachmentsPlace, Config, StoreKind};
use crate::files::{FileStore, Written};
use crate::stores;

/// Entities listed at once.
const ENTITIES_AT_ONCE: usize = 500;
/// Faults of attachments that are listed; more are only counted.
const MAX_LISTED_FAULTS: usize = 100;
/// Reads everything in the store, and the attachments if they are in a directory, and compares it with what was
/// written; returns a summary.
///
/// # Errors
/// [`OperatorError::Damaged`] with every fault, a line each; the error that keeps the store from opening.
pub async fn verify(config: &Config) -> Result<String, OperatorError> {
    if config.store == StoreKind::Cql {
        return Err(OperatorError::NotEmbedded);
    }
    let dir = &config.data_dir;
    there(dir)?;
    let report = embedded::verify(dir)?;
    // Only a sound store shows which files must exist.
    let files = if report.is_clean() { verify_files(config).await? } else { VerifiedFiles::default() };
    let fault_count = report.fault_count + files.fault_count;
    if fault_count == 0 {
        let embedded::Report { batches, entities, commits, events, rows, .. } = report;
        return Ok(format!(
            "{} is sound: {batches} batches, {entities} entities, {commits} commits, {events} events, {rows} rows, \
             {} attachments\n",
            dir.display(),
            files.sound
        ));
    }
    let faults: String = report.faults.iter().map(fault_line).chain(files.faults).collect();
    Err(OperatorError::Damaged(format!("{} is damaged: {fault_count} faults{faults}", dir.display())))
}

fn fault_line(fault: &embedded::Fault) -> String {
    let entity = fault.entity.map_or_else(String::new, |entity| format!("{entity:?}: "));
    format!("\n{entity}{}", fault.what)
}

/// The findings about attachments.
#[derive(Default)]
struct VerifiedFiles {
    /// How many are sound.
    sound: u64,
    /// The faults of the first of the others, a line each.
    faults: Vec<String>,
    /// How many others there are.
    fault_count: u64,
}

/// Compares the attachments with what was written. A bucket checks its content itself, and is not read.
async fn verify_files(config: &Config) -> Result<VerifiedFiles, OperatorError> {
    let mut found = VerifiedFiles::default();
    let AttachmentsPlace::Directory(_) = &config.attachments.place else { return Ok(found) };
    let kept = FileStore::open(&config.attachments)?;
    let store = stores::open(config, Box::new(|_| {})).await?;
    let verified = async {
        let mut after = None;
        loop {
            let entities = store.entities(after, ENTITIES_AT_ONCE).await?;
            for &entity in entities.iter().filter(|entity| entity.kind == Kind::Attachment) {
                let Some(state) = stored_state::<Attachment>(&*store, entity).await? else { continue };
                let Some(file) = state.ready() else { continue };
                let Err(error) = kept.check(&file.storage_key, Written::of(file)).await else {
                    found.sound += 1;
                    continue;
                };
                found.fault_count += 1;
                if found.faults.len() < MAX_LISTED_FAULTS {
                    found.faults.push(format!("\n{}: {}: {error}", state.id, file.storage_key));
                }
            }
            match entities.last() {
                Some(last) if entities.len() == ENTITIES_AT_ONCE => after = Some(*last),
                _ => return Ok(found),
            }
        }
    };
    let verified = verified.await;
    store.close().await;
    verified
}
