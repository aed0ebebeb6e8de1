//! Restarts, the lock, and the HEAD file.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use schema::embedded::verify;

use super::*;

const ENTITIES: u64 = 20;

/// Ten commits in each of twenty entities; half of them in tables, half in the journal only.
async fn fill(dir: &Path) {
    let store = open(dir);
    let mut heads = vec![None; ENTITIES as usize];
    for event in 0..10 {
        for n in 0..ENTITIES {
            let head = append(&store, entity(n), heads[n as usize], &format!("{n}/{event}")).await;
            heads[n as usize] = Some(head);
        }
        if event == 4 {
            store.flush().unwrap();
        }
    }
    store.close().await;
}

async fn assert_full(store: &EmbeddedStore) {
    for n in 0..ENTITIES {
        let expected: Vec<_> = (0..10).map(|event| format!("{n}/{event}")).collect();
        assert_eq!(payloads(store, entity(n)).await, expected);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    for _ in 0..3 {
        let store = open(dir.path());
        assert_full(&store).await;
    }
    let report = verify(dir.path()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.entities, report.commits, report.events), (ENTITIES, ENTITIES * 10, ENTITIES * 10));
}

#[tokio::test]
async fn a_second_opener_learns_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::InUse { holder: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()));
    append(&store, entity(1), None, "goes on").await;
    drop(store);
    open(dir.path());
}

#[tokio::test]
async fn a_store_that_is_behind_its_head_file_names_the_missing_batches() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let old = dir.path().join("old");
    fill(&live).await;
    copy(&live, &old);
    let store = open(&live);
    for n in 100..107 {
        append(&store, entity(n), None, "more").await;
    }
    drop(store);
    std::fs::copy(live.join("HEAD"), old.join("HEAD")).unwrap();
    for _ in 0..2 {
        let error = refused(&old);
        assert!(matches!(error, OpenError::AcknowledgedDataMissing { from: 201, to: 207 }), "{error}");
    }
    assert!(verify(&old).is_err());
    let store = EmbeddedStore::open(&old, options().accept_loss(true)).unwrap();
    assert_full(&store).await;
    append(&store, entity(200), None, "after the loss").await;
    drop(store);
    assert_full(&open(&old)).await;
    assert!(verify(&old).unwrap().is_clean());
}

#[tokio::test]
async fn a_store_that_is_ahead_of_its_head_file_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let head = append(&store, entity(1), None, "first").await;
    let before = std::fs::read(dir.path().join("HEAD")).unwrap();
    append(&store, entity(1), Some(head), "second").await;
    drop(store);
    std::fs::write(dir.path().join("HEAD"), before).unwrap();
    assert_eq!(payloads(&open(dir.path()), entity(1)).await, ["first", "second"]);
    assert!(verify(dir.path()).unwrap().is_clean());
}

#[tokio::test]
async fn a_damaged_slot_is_replaced_by_the_other_one_and_two_are_too_many() {
    for (slots, opens) in [(&[0_u64][..], true), (&[2_048][..], true), (&[0, 2_048][..], false)] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path()).await;
        slots.iter().for_each(|at| overwrite(&dir.path().join("HEAD"), at + 10, b"damage"));
        if opens {
            assert_full(&open(dir.path())).await;
            continue;
        }
        assert!(matches!(refused(dir.path()), OpenError::HeadDamaged));
        let store = EmbeddedStore::open(dir.path(), options().accept_loss(true)).unwrap();
        assert_full(&store).await;
        drop(store);
        assert_full(&open(dir.path())).await;
    }
}

#[tokio::test]
async fn a_database_without_a_head_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    std::fs::remove_file(dir.path().join("HEAD")).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::HeadMissing));
    assert_full(&EmbeddedStore::open(dir.path(), options().accept_loss(true)).unwrap()).await;
}

#[tokio::test]
async fn a_head_file_without_a_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    std::fs::remove_dir_all(dir.path().join("engine")).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::AcknowledgedDataMissing { from: 1, to: 200 }));
}

#[tokio::test]
async fn another_history_of_the_same_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    let other = dir.path().join("other");
    for (path, payload) in [(&one, "one"), (&other, "other")] {
        append(&open(path), entity(1), None, payload).await;
    }
    std::fs::copy(one.join("HEAD"), other.join("HEAD")).unwrap();
    assert!(matches!(refused(&other), OpenError::ChainMismatch { batch: 1 }));
}

#[tokio::test]
async fn an_interrupted_creation_is_begun_again() {
    // The engine writes its marker in two pieces.
    for (head, marker) in [(true, None), (false, None), (true, Some("")), (true, Some("FJL"))] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let engine = dir.path().join("engine");
        match marker {
            None => std::fs::remove_file(engine.join("version")).unwrap(),
            Some(written) => std::fs::write(engine.join("version"), written).unwrap(),
        }
        std::fs::remove_dir_all(engine.join("keyspaces")).unwrap();
        std::fs::create_dir(engine.join("keyspaces")).unwrap();
        // The state before the first keyspace: a journal of zeros.
        std::fs::write(engine.join("0.jnl"), [0; 4_096]).unwrap();
        if !head {
            std::fs::remove_file(dir.path().join("HEAD")).unwrap();
        }
        append(&open(dir.path()), entity(1), None, "works").await;
        std::fs::write(dir.path().join("HEAD.new"), b"left over").unwrap();
        assert_eq!(payloads(&open(dir.path()), entity(1)).await, ["works"]);
    }
}

/// Every file below `dir` with its content, except the locks.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else if !path.file_name().unwrap().eq_ignore_ascii_case("lock") {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_restore_that_lacks_the_small_files_is_refused_and_loses_nothing_more() {
    // The data that is left: all, only tables, only journals.
    for (left, lost) in [("all", None), ("tables", Some("jnl")), ("journals", Some("keyspaces"))] {
        for head in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path()).await;
            let engine = dir.path().join("engine");
            match left {
                "all" => std::fs::write(engine.join("version"), "FJ").unwrap(),
                _ => std::fs::remove_file(engine.join("version")).unwrap(),
            }
            if !head {
                std::fs::remove_file(dir.path().join("HEAD")).unwrap();
            }
            match lost {
                Some("jnl") => {
                    let files = std::fs::read_dir(&engine).unwrap().map(|entry| entry.unwrap().path());
                    files
                        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
                        .for_each(|path| std::fs::remove_file(path).unwrap());
                }
                Some(other) => std::fs::remove_dir_all(engine.join(other)).unwrap(),
                None => {}
            }
            let before = content(dir.path());
            let opened = EmbeddedStore::open(dir.path(), options().accept_loss(true)).map(drop);
            for error in [refused(dir.path()), verify(dir.path()).unwrap_err(), opened.unwrap_err()] {
                assert!(matches!(error, OpenError::DatabaseIncomplete { .. }), "{left}, {head}: {error}");
                assert!(error.to_string().contains("version is missing or incomplete"), "{error}");
            }
            assert!(content(dir.path()) == before, "{left}, {head}");
        }
    }
}

#[tokio::test]
async fn verifying_makes_no_store_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("attachments")).unwrap();
    assert!(matches!(verify(dir.path()), Err(OpenError::NoStore(_))));
    assert!(content(dir.path()).is_empty());
    let nowhere = dir.path().join("nowhere");
    assert!(verify(&nowhere).is_err());
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn a_directory_that_cannot_be_looked_into_is_no_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    std::fs::remove_file(dir.path().join("HEAD")).unwrap();
    // A symbolic link to itself, so that the file's existence cannot be determined.
    let version = dir.path().join("engine/version");
    std::fs::remove_file(&version).unwrap();
    std::os::unix::fs::symlink("version", &version).unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, OpenError::Io { path, .. } if *path == version), "{error}");
}

#[tokio::test]
async fn a_new_directory_is_readable_by_its_user_only_and_another_keeps_its_mode() {
    let mode = |dir: &Path| std::fs::metadata(dir).unwrap().permissions().mode() & 0o777;
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("data");
    open(&new).close().await;
    assert_eq!(mode(&new), 0o700);
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o750)).unwrap();
    open(&new).close().await;
    assert_eq!(mode(&new), 0o750);
}
