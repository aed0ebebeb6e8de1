//! Flipped bits and cut files: the store is refused, is complete, or returns an error where it is read. Damage is never
//! hidden.
//!
//! `TERTULIA_FLIPS` sets the number of damages (300 by default), `TERTULIA_SEED` the first seed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use actors::clock::Millis;
use actors::store::{
    AlarmChange, Fingerprint, KeyHash, KeyRow, LogScan, Order, RowWrite, Scan, SeqRange, StoreError, Table, View,
    ViewWrite,
};
use bytes::Bytes;
use schema::embedded::verify;

use super::*;

const ENTITIES: u64 = 24;
const COMMITS: u64 = 12;
const JOURNAL: &str = "engine/0.jnl";
/// The bytes that end a batch in a journal.
const BATCH_END: &[u8] = b"FJL\x03";

/// A file as it was when the store was closed: its length and everything before its final zeros.
struct Original {
    path: PathBuf,
    len: u64,
    content: Vec<u8>,
}

fn snapshot(dir: &Path, base: &Path, files: &mut Vec<Original>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            snapshot(&path, base, files);
            continue;
        }
        let mut content = std::fs::read(&path).unwrap();
        let len = content.len() as u64;
        content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        files.push(Original { path: path.strip_prefix(base).unwrap().to_owned(), len, content });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
}

fn restore(files: &[Original], dir: &Path) {
    for file in files {
        let path = dir.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &file.content).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(file.len).unwrap();
    }
}

/// The `n`th commit of an entity: two events, a key, two rows, an entry, an alarm, sometimes a state.
fn content(n: u64, number: u64, head: Option<Head>) -> actors::store::Commit {
    let mut next = events(entity(n), head, &[&format!("{n}/{number}/a"), &format!("{n}/{number}/b")]);
    let text = Bytes::from(format!("{n}/{number}"));
    let seq = head.map_or(0, |head| head.seq);
    let row = KeyRow::new(Fingerprint([n as u8; 16]), SeqRange::new(seq + 1, seq + 2), Millis(u64::MAX / 2));
    next.keys = vec![(name(n, number), row)];
    next.rows = vec![
        RowWrite { table: Table(1), key: text.clone(), value: Some(text.clone()) },
        RowWrite { table: Table(1), key: Bytes::from_static(b"newest"), value: Some(text.clone()) },
    ];
    next.views = vec![ViewWrite { view: View(1), key: text.clone(), value: Some(text) }];
    next.alarm = Some(AlarmChange { previous: None, next: Some(Millis(1_000 + number)) });
    next.state = (number % 5 == 4).then(|| Bytes::from(format!("state {n}/{number}")));
    next
}

fn name(n: u64, number: u64) -> KeyHash {
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&(n * 1_000 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    KeyHash(hash)
}

/// Everything a reader can see.
#[derive(Debug, PartialEq)]
struct Seen {
    loaded: Option<actors::store::Loaded>,
    log: Vec<actors::store::LogRecord>,
    back: Vec<actors::store::LogRecord>,
    keys: Vec<Option<KeyRow>>,
    rows: Vec<actors::store::Row>,
}

async fn read(store: &EmbeddedStore, n: u64) -> Result<Seen, StoreError> {
    let mut keys = Vec::new();
    for number in 0..COMMITS {
        keys.push(store.find_key(entity(n), name(n, number)).await?);
    }
    Ok(Seen {
        loaded: store.load(entity(n), ReadLevel::Settled).await?,
        log: store.read_log(entity(n), LogScan { range: SeqRange::ALL, order: Order::Asc, limit: 1_000 }).await?,
        back: store.read_log(entity(n), LogScan { range: SeqRange::ALL, order: Order::Desc, limit: 1_000 }).await?,
        keys,
        rows: store.rows(entity(n), Table(1), Scan::new(Default::default(), Order::Asc, 1_000)).await?,
    })
}

async fn lists(store: &EmbeddedStore) -> Result<(Vec<actors::store::Row>, Vec<actors::store::Due>), StoreError> {
    let view = store.view(Address([1; 10]), View(1), Scan::new(Default::default(), Order::Asc, 10_000)).await?;
    Ok((view, store.due(None, Millis(10_000), 10_000).await?.alarms))
}

type Everything = (Vec<Seen>, (Vec<actors::store::Row>, Vec<actors::store::Due>));

async fn everything(store: &EmbeddedStore) -> Everything {
    let mut seen = Vec::new();
    for n in 0..ENTITIES {
        seen.push(read(store, n).await.unwrap());
    }
    (seen, lists(store).await.unwrap())
}

/// A store with two thirds of its commits in tables (of two flushes) and the rest in the journal only.
async fn build(dir: &Path) -> Everything {
    let store = open(dir);
    let mut heads = vec![None; ENTITIES as usize];
    for number in 0..COMMITS {
        for n in 0..ENTITIES {
            let next = content(n, number, heads[n as usize]);
            heads[n as usize] = Some(next.next_head());
            assert!(matches!(commit(&store, next).await, Ok(Outcome::Committed(_))));
        }
        if number == 3 || number == 7 {
            store.flush().unwrap();
        }
    }
    let seen = everything(&store).await;
    store.close().await;
    seen
}

/// splitmix64.
fn draw(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Flips one bit of one file, or cuts it; returns a description.
fn damage(files: &[Original], dir: &Path, random: &mut u64) -> String {
    loop {
        // A third goes to the journal, because it is one file of many, and the one that the engine would cut.
        let journal = files.iter().find(|file| file.path == Path::new(JOURNAL)).unwrap();
        let any = &files[(draw(random) % files.len() as u64) as usize];
        let file = if draw(random).is_multiple_of(3) { journal } else { any };
        let locks = file.path.ends_with("LOCK") || file.path.ends_with("lock");
        if file.content.is_empty() || locks {
            continue;
        }
        let path = dir.join(&file.path);
        let at = draw(random) % file.content.len() as u64;
        if draw(random).is_multiple_of(3) {
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(at).unwrap();
            return format!("{} cut to {at} of {}", file.path.display(), file.len);
        }
        let bit = draw(random) % 8;
        let mut content = file.content.clone();
        content[at as usize] ^= 1 << bit;
        std::fs::write(&path, content).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(file.len).unwrap();
        return format!("{} bit {bit} of byte {at} of {} flipped", file.path.display(), file.content.len());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Refused,
    ErrorWhereRead,
    Complete,
}

/// How reading the store ends; panics if acknowledged content is missing or altered without an error.
async fn judge(dir: &Path, expected: &Everything, what: &str) -> Ending {
    let store = match EmbeddedStore::open(dir, options()) {
        Ok(store) => store,
        Err(_) => return Ending::Refused,
    };
    let mut ending = Ending::Complete;
    for n in 0..ENTITIES {
        match read(&store, n).await {
            Ok(seen) => assert_eq!(seen, expected.0[n as usize], "{what}: entity {n}"),
            Err(StoreError::Corrupt(_)) => ending = Ending::ErrorWhereRead,
            Err(other) => panic!("{what}: {other}"),
        }
    }
    match lists(&store).await {
        Ok(lists) => assert_eq!(lists, expected.1, "{what}"),
        Err(StoreError::Corrupt(_)) => ending = Ending::ErrorWhereRead,
        Err(other) => panic!("{what}: {other}"),
    }
    ending
}

#[test]
fn no_damage_goes_unnoticed() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let flips = variable("TERTULIA_FLIPS").unwrap_or(300);
    let first = variable("TERTULIA_SEED").unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    let expected = runtime.block_on(build(&original));
    let mut files = Vec::new();
    snapshot(&original, &original, &mut files);
    let mut endings = BTreeMap::new();
    let failure = (first..first + flips).find_map(|seed| {
        let copy = dir.path().join(format!("{seed}"));
        restore(&files, &copy);
        let what = damage(&files, &copy, &mut seed.clone());
        let judged = catch_unwind(AssertUnwindSafe(|| {
            // First, because opening may repair what an open store has noticed.
            let verified = verify(&copy).is_ok_and(|report| report.is_clean());
            let ending = runtime.block_on(judge(&copy, &expected, &what));
            assert!(!verified || ending == Ending::Complete, "{what}: {ending:?}, but verify found nothing");
            ending
        }));
        std::fs::remove_dir_all(&copy).unwrap();
        match judged {
            Ok(ending) => {
                *endings.entry(ending).or_insert(0) += 1;
                None
            }
            Err(panic) => {
                let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                Some(format!("seed {seed}, {what}: {message:.2000}"))
            }
        }
    });
    assert_eq!(failure, None);
    println!("{endings:?}");
    assert!(endings.len() >= 2, "the damages are of several kinds: {endings:?}");
}

/// A built store's files, and where the batches in its journal end.
fn built(dir: &Path) -> (Vec<Original>, Vec<usize>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(build(dir));
    let mut files = Vec::new();
    snapshot(dir, dir, &mut files);
    let journal = &files.iter().find(|file| file.path == Path::new(JOURNAL)).unwrap().content;
    let ends = journal.windows(BATCH_END.len()).enumerate().filter(|(_, window)| *window == BATCH_END);
    let ends: Vec<_> = ends.map(|(at, _)| at + BATCH_END.len()).collect();
    assert_eq!(ends.len() as u64, ENTITIES * COMMITS, "a commit was a batch");
    (files, ends)
}

/// Splits the journal: its first `sealed` bytes become an older one, cut to `kept`, and the rest the newest one.
fn split(files: &[Original], dir: &Path, sealed: usize, kept: usize) {
    restore(files, dir);
    let journal = std::fs::read(dir.join(JOURNAL)).unwrap();
    std::fs::write(dir.join(JOURNAL), &journal[..kept]).unwrap();
    std::fs::write(dir.join("engine/1.jnl"), &journal[sealed..]).unwrap();
}

#[test]
fn a_cut_in_an_older_journal_is_refused_even_between_two_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (files, ends) = built(&dir.path().join("original"));
    let sealed = ends[200];
    let whole = dir.path().join("whole");
    split(&files, &whole, sealed, sealed);
    assert!(verify(&whole).unwrap().is_clean());
    for kept in [0, 1, ends[10], ends[199], ends[100] + 7, sealed - 1] {
        let cut = dir.path().join(format!("{kept}"));
        split(&files, &cut, sealed, kept);
        let before = std::fs::read(cut.join(JOURNAL)).unwrap();
        assert!(matches!(refused(&cut), OpenError::JournalDamaged(_)), "cut to {kept} of {sealed}");
        assert!(matches!(verify(&cut), Err(OpenError::JournalDamaged(_))), "cut to {kept} of {sealed}");
        assert_eq!(std::fs::read(cut.join(JOURNAL)).unwrap(), before, "nothing is changed by looking");
    }
}

#[test]
fn a_changed_engine_sequence_is_refused_although_no_checksum_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let (files, ends) = built(&dir.path().join("original"));
    for (n, bit) in [(3, 0), (100, 1), (150, 2), (250, 3), (280, 9), (286, 63)] {
        let copy = dir.path().join(format!("{n}"));
        restore(&files, &copy);
        let mut journal = std::fs::read(copy.join(JOURNAL)).unwrap();
        // A batch begins with a tag and the number of its items.
        journal[ends[n] + 5 + bit / 8] ^= 1 << (bit % 8);
        std::fs::write(copy.join(JOURNAL), journal).unwrap();
        assert!(matches!(refused(&copy), OpenError::JournalDamaged(_)), "batch {n}, bit {bit}");
    }
}

#[test]
fn a_manifest_that_is_not_the_newest_one_is_refused_and_costs_no_table() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = built(&dir.path().join("original"));
    let tables = |dir: &Path| std::fs::read_dir(dir.join("engine/keyspaces/1/tables")).unwrap().count();
    let copy = dir.path().join("copy");
    restore(&files, &copy);
    let current = copy.join("engine/keyspaces/1/current");
    let mut content = std::fs::read(&current).unwrap();
    content[0] -= 1;
    std::fs::write(&current, content).unwrap();
    let before = tables(&copy);
    for accept_loss in [false, true] {
        let refused = EmbeddedStore::open(&copy, options().accept_loss(accept_loss)).map(drop);
        assert!(matches!(refused, Err(OpenError::ManifestDamaged(_))), "{refused:?}");
    }
    assert_eq!(tables(&copy), before);
}
