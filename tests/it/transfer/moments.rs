//! An export to a file is of one moment, however often it was interrupted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use actors::clock::SystemClock;
use actors::id::Kind;
use actors::store::inventory::Inventory;
use schema::embedded::{EmbeddedStore, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tertulia::transfer::{ExistingExport, Exported, Moved, TransferError, export_to_file};

use super::{contents, exported, imported, memory};
use crate::support::client::Client;
use crate::support::program::{Server, program};
use crate::support::{ADMIN_KEY, BEGIN, TestStore};

fn read(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A file with these bytes.
fn holding(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

async fn to_file(store: &Arc<dyn Inventory>, file: &File) -> Result<Exported, TransferError> {
    let store = Arc::clone(store);
    let file = file.try_clone().unwrap();
    TestStore::within(async move { export_to_file(&*store, None, BEGIN, &file).await }).await
}

/// Cuts an export in many places; each time it must be completed to the same bytes.
async fn goes_on(store: &Arc<dyn Inventory>, step: usize) {
    let file = tempfile::tempfile().unwrap();
    let first = to_file(store, &file).await.unwrap();
    assert_eq!((first.resumed, first.found), (0, ExistingExport::Nothing));
    let whole = read(&file);
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap();
    let mut most = 0;
    for cut in (header + 1..whole.len()).step_by(step).chain([0, whole.len() - 1]) {
        file.set_len(cut as u64).unwrap();
        let done = to_file(store, &file).await.unwrap();
        let found = if done.resumed > 0 { ExistingExport::Part } else { ExistingExport::Nothing };
        assert_eq!((done.entities, done.found), (first.entities, found), "cut at {cut}");
        assert!(read(&file) == whole, "cut at {cut}");
        most = most.max(done.resumed);
    }
    assert!(most > first.entities / 2, "only {most} of {} entities were ever kept", first.entities);
    let again = to_file(store, &file).await.unwrap();
    assert_eq!(again, Exported { resumed: first.entities, found: ExistingExport::Whole, ..first });
    assert!(read(&file) == whole);
}

#[tokio::test]
async fn an_export_to_a_file_goes_on_behind_the_last_entity_that_is_whole() {
    let days = Days::begin();
    // One store lists entities in the order of their names, the other does not.
    days.store(async |store| goes_on(&store, 997).await).await;
    goes_on(&days.moved_to(memory()).await, 997).await;
}

#[tokio::test]
async fn an_export_of_a_cql_store_goes_on_in_the_order_of_that_store() {
    if bed::server().is_none() {
        return;
    }
    let (_store, inventory) = TestStore::cql_inventory().await;
    goes_on(&Days::begin().moved_to(inventory).await, 1_997).await;
}

/// The file with one record altered.
fn changed(file: &str) -> String {
    let at = file.find("[[true,\"").unwrap() + 20;
    let other = if file.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &file[..at], &file[at + 1..])
}

#[tokio::test]
async fn a_file_that_is_no_valid_export_is_left_unchanged() {
    let store = Days::begin().moved_to(memory()).await;
    let notes = holding(b"my notes\n");
    let refused = to_file(&store, &notes).await;
    assert!(matches!(refused, Err(TransferError::Malformed { line: 1, .. })), "{refused:?}");
    assert_eq!(read(&notes), b"my notes\n");
    // A complete export with a line missing or altered is none either.
    let whole = String::from_utf8(exported(&*store, None).await).unwrap();
    let last = whole.lines().rfind(|line| line.contains("\"commit\"")).unwrap();
    for damaged in [
        whole.replacen(&format!("{last}\n"), "", 1),
        whole.replacen("\"at\":", "\"at\":1", 1),
        whole.replacen(last, &last[1..], 1),
        format!("{whole}{{}}\n"),
        // An interrupted export is checked as well.
        changed(&whole[..whole.len() * 3 / 4]),
    ] {
        let file = holding(damaged.as_bytes());
        let refused = to_file(&store, &file).await;
        assert!(matches!(refused, Err(TransferError::Malformed { .. })), "{refused:?}");
        assert_eq!(read(&file), damaged.as_bytes());
    }
}

/// A data directory in which servers run one after the other.
struct Days {
    data: PathBuf,
    dir: TempDir,
}

impl Days {
    /// A dozen conversations, and a message on a channel.
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let days = Self { data: dir.path().join("data"), dir };
        days.send(|client| {
            for n in 0..12 {
                let body = json!({"content": {"content": format!("conversation {n}")}});
                sent(client, "POST", "/api/v1/messages", &body);
            }
            sent(client, "POST", "/api/v1/messages", &json!({"channelId": "demo", "text": "on the first day"}));
        });
        days
    }

    /// Sends requests to a server and stops it regularly, so that no work is left.
    fn send(&self, what: impl FnOnce(&mut Client)) {
        let server = Server::start(&self.data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
        what(&mut Client::connect(&server.address).unwrap());
        assert_eq!(server.terminate(), Some(0));
    }

    /// The same content in another store, which no server uses.
    async fn moved_to(&self, store: Arc<dyn Inventory>) -> Arc<dyn Inventory> {
        let file = self.store(async |store| exported(&*store, None).await).await;
        TestStore::within(async move {
            imported(&store, &file).await.unwrap();
            store
        })
        .await
    }

    /// Uses the store while no server runs.
    async fn store<T>(&self, work: impl AsyncFnOnce(Arc<dyn Inventory>) -> T) -> T {
        let fatal = |reason| panic!("the embedded store failed: {reason}");
        let options = Options::new(Arc::new(SystemClock), Box::new(fatal)).cache_bytes(4 << 20);
        let store: Arc<dyn Inventory> = Arc::new(EmbeddedStore::open(&self.data, options).unwrap());
        let done = work(Arc::clone(&store)).await;
        store.close().await;
        done
    }
}

fn sent(client: &mut Client, method: &str, path: &str, body: &Value) {
    let reply = client.send(method, path, None, &body.to_string()).unwrap();
    assert!(reply.status < 300, "{method} {path}: {}", String::from_utf8_lossy(&reply.body));
}

/// Changes that may happen between two exports.
#[derive(Clone, Copy, Debug)]
enum Happened {
    Written,
    Made,
    Configured,
    KeyMade,
}

const HAPPENINGS: [Happened; 4] = [Happened::Written, Happened::Made, Happened::Configured, Happened::KeyMade];

impl Happened {
    fn happen(self, days: &Days) {
        let (method, path, body) = match self {
            Self::Written => ("POST", "/api/v1/messages", json!({"channelId": "demo", "text": "on the second day"})),
            Self::Made => ("POST", "/api/v1/messages", json!({"content": {"content": "on the second day"}})),
            Self::Configured => ("PATCH", "/api/v1/channels/demo", json!({"name": "Demo of the second day"})),
            Self::KeyMade => ("POST", "/api/v1/api-keys", json!({"name": "second", "scopes": ["messages:read"]})),
        };
        days.send(|client| sent(client, method, path, &body));
    }

    fn is(self, moved: Moved) -> bool {
        match (self, moved) {
            (Self::Written, Moved::Written(entity)) | (Self::Made, Moved::Made(entity)) => {
                entity.kind == Kind::Conversation
            }
            (Self::Configured, Moved::Written(entity)) => entity.kind == Kind::Workspace,
            (Self::KeyMade, Moved::Installation) => true,
            _ => false,
        }
    }
}

#[tokio::test]
async fn a_whole_export_of_an_earlier_moment_is_refused_by_what_moved() {
    let days = Days::begin();
    for happened in HAPPENINGS {
        let file = tempfile::tempfile().unwrap();
        days.store(async |store| {
            to_file(&store, &file).await.unwrap();
            assert_eq!(to_file(&store, &file).await.unwrap().found, ExistingExport::Whole);
        })
        .await;
        let whole = read(&file);
        happened.happen(&days);
        match days.store(async |store| to_file(&store, &file).await).await {
            Err(TransferError::Past(moved)) => assert!(happened.is(moved), "{happened:?}: {moved}"),
            other => panic!("{happened:?}: {other:?}"),
        }
        assert!(read(&file) == whole, "{happened:?}");
    }
}

#[tokio::test]
async fn an_export_that_was_broken_off_is_of_the_moment_at_which_it_ends() {
    let days = Days::begin();
    for happened in HAPPENINGS {
        let whole = days.store(async |store| exported(&*store, None).await).await;
        happened.happen(&days);
        let found = days.store(async |store| {
            let now = contents(&exported(&*store, None).await);
            let mut found = Vec::new();
            // At the last cut only the end of the file is missing.
            for cut in (1..16).map(|n| whole.len() * n / 16).chain([whole.len() - 1]) {
                let file = holding(&whole[..cut]);
                let done = to_file(&store, &file).await.unwrap();
                let file = read(&file);
                assert!(contents(&file) == now, "{happened:?}, cut at {cut}: {done:?}");
                assert_eq!(imported(&memory(), &file).await.unwrap().entities, done.entities);
                found.push(done.found);
            }
            found
        });
        let found = found.await;
        let is_named = |found: &ExistingExport| matches!(found, ExistingExport::Past(moved) if happened.is(*moved));
        assert!(found.iter().any(is_named), "{happened:?}: {found:?}");
        // Workspaces come last, so a change of their configuration moves nothing before them.
        let keeps = |found: &ExistingExport| *found == ExistingExport::Part;
        assert!(!matches!(happened, Happened::Configured) || found.iter().any(keeps), "{found:?}");
        assert!(!matches!(happened, Happened::KeyMade) || !found.iter().any(keeps), "{found:?}");
    }
}

fn export(data: &Path, options: &[&str], to: &Path) -> Output {
    program(data).args(["export", "--out"]).arg(to).args(options).output().unwrap()
}

/// What an operator sees of the command: whether it succeeded, and its messages.
fn said(output: &Output) -> (bool, String) {
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_export_of_every_night_is_never_that_of_the_night_before() {
    let days = Days::begin();
    let out = days.dir.path().join("backup.jsonl");
    let export = |options: &[&str]| said(&export(&days.data, options, &out));
    let (well, words) = export(&[]);
    assert!(well && words.starts_with("exported "), "{words}");
    let first = std::fs::read(&out).unwrap();
    let (well, words) = export(&[]);
    assert!(well && words.starts_with("the file is unchanged: "), "{words}");
    Happened::Written.happen(&days);
    let (well, words) = export(&[]);
    assert!(!well && words.contains("has changed since") && words.contains("--anew"), "{words}");
    assert_eq!(std::fs::read(&out).unwrap(), first);
    let (well, words) = export(&["--anew"]);
    assert!(well && words.starts_with("exported "), "{words}");
    let second = std::fs::read(&out).unwrap();
    assert_ne!(contents(&second), contents(&first));
    assert_eq!(std::fs::read_dir(days.dir.path()).unwrap().count(), 2, "nothing is left beside it");
    // A file interrupted before the changes, and a file that is no export.
    let end = first.len() - 1;
    std::fs::write(&out, &first[..end]).unwrap();
    let (well, words) = export(&[]);
    assert!(well && words.starts_with("the file held part of an export of another state ("), "{words}");
    assert!(contents(&std::fs::read(&out).unwrap()) == contents(&second));
    std::fs::write(&out, "my notes\n").unwrap();
    let (well, words) = export(&["--anew"]);
    assert!(!well && words.contains("is not a file of this export"), "{words}");
    assert_eq!(std::fs::read(&out).unwrap(), b"my notes\n");
}
