use std::fs;
use std::process::Command;

use crate::standin::{Place, answers, soon};

#[test]
fn a_server_is_shared_and_ends_with_its_last_user() {
    let place = Place::new(false);
    let one = place.holder();
    let two = place.holder();
    assert_eq!(one.address, two.address);
    let address = one.address.clone();
    one.let_go();
    assert!(answers(&address));
    two.let_go();
    soon("the server is gone", || !answers(&address));
}

#[test]
fn a_server_ends_although_its_user_was_killed() {
    let place = Place::new(false);
    let holder = place.holder();
    let address = holder.address.clone();
    assert!(answers(&address));
    holder.kill();
    soon("the server is gone", || !answers(&address));
    soon("its files are gone", || {
        let left = fs::read_dir(place.path().join("tmp")).unwrap().flatten();
        left.flat_map(|dir| fs::read_dir(dir.path()).unwrap().flatten()).all(|file| file.file_name() != "files")
    });
}

#[test]
fn a_server_ends_although_its_keeper_was_killed() {
    let place = Place::new(false);
    let holder = place.holder();
    let of_keeper = format!("TMPDIR={}", place.path().join("tmp").display());
    let keeper = processes().into_iter().find(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        environment.contains(&of_keeper)
            && environment.contains("TERTULIA_BED_KEEP=")
            && !environment.contains("BED_LOG=")
    });
    // Other systems do not show the environments of processes.
    let Some(keeper) = keeper else { return };
    assert!(Command::new("kill").args(["-9", &keeper]).status().unwrap().success());
    soon("the server is gone", || !answers(&holder.address));
    let next = place.holder();
    assert!(answers(&next.address));
    next.let_go();
    holder.let_go();
}

fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn docker_is_asked_first_and_its_container_is_removed() {
    let place = Place::new(true);
    let holder = place.holder();
    let address = holder.address.clone();
    assert!(answers(&address));
    holder.kill();
    soon("the container is removed", || {
        let removed = fs::read_to_string(place.path().join("removed")).unwrap_or_default();
        removed.starts_with("tertulia-bed-") && removed.lines().count() == 1
    });
    soon("the server is gone", || !answers(&address));
}

#[test]
fn the_nodes_of_a_cluster_are_paused_killed_and_started_one_by_one() {
    let (well, words) = Place::new(false).run("life::break_a_cluster", &[]);
    assert!(well, "{words}");
}

/// Not a test by itself: it needs the stand-ins.
#[test]
#[ignore = "the_nodes_of_a_cluster_are_paused_killed_and_started_one_by_one starts it"]
fn break_a_cluster() {
    let cluster = bed::cluster().expect("three nodes");
    let nodes = cluster.nodes();
    let answering = || nodes.iter().map(|node| answers(node)).collect::<Vec<_>>();
    assert_eq!(answering(), [true; 3]);
    cluster.kill(1);
    assert_eq!(answering(), [true, false, true]);
    cluster.start(1);
    assert_eq!(answering(), [true; 3]);
    // A paused process still has its port: pending connections are answered once it resumes.
    cluster.pause(2);
    cluster.resume(2);
    assert_eq!(answering(), [true; 3]);
}

/// Not a test by itself: it uses the programs of its place.
#[test]
#[ignore = "the tests below start it"]
fn wants_a_server() {
    // The result does not matter here: the caller checks whether there is a server.
    _ = bed::server();
}

#[test]
fn without_a_server_a_test_is_skipped_by_name_with_the_reasons() {
    let (well, words) = Place::new(false).run("life::wants_a_server", &[("BED_STANDIN_FAILS", "1")]);
    assert!(
        well && words.contains("skipped: life::wants_a_server: no CQL server: docker: no daemon; Cassandra: "),
        "{words}"
    );
    assert!(words.contains("ended: no memory is left"), "{words}");
}

#[test]
fn a_test_without_a_server_fails_if_ci_is_set() {
    let (well, words) = Place::new(false).run("life::wants_a_server", &[("BED_STANDIN_FAILS", "1"), ("CI", "true")]);
    assert!(!well && words.contains("life::wants_a_server needs a CQL server, and there is none"), "{words}");
}

#[test]
fn named_nodes_are_used_and_none_is_started() {
    let place = Place::new(false);
    let (well, words) =
        place.run("life::takes_what_is_named", &[("TERTULIA_TEST_CQL_NODES", "127.0.0.1:1, 127.0.0.2:2")]);
    assert!(well, "{words}");
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}

/// Not a test by itself: the test above names the nodes.
#[test]
#[ignore = "named_nodes_are_used_and_none_is_started starts it"]
fn takes_what_is_named() {
    assert_eq!(bed::server().expect("it is named").nodes(), ["127.0.0.1:1", "127.0.0.2:2"]);
}

#[test]
fn a_model_is_fetched_once_and_ends_although_its_user_was_killed() {
    let place = Place::new(false);
    let one = place.holder_of(&["model"]);
    let two = place.holder_of(&["model"]);
    let fetched = fs::read_to_string(place.path().join("fetched")).unwrap();
    assert_eq!(fetched.lines().count(), 1, "it was there the second time");
    let kept: Vec<_> = fs::read_dir(place.path().join("cache/tertulia-bed")).unwrap().flatten().collect();
    assert_eq!(kept.len(), 2, "nothing is left of fetching: {kept:?}");
    let runs = |process: &str| Command::new("kill").args(["-0", process]).output().unwrap().status.success();
    let first = one.address.clone();
    let second = two.address.clone();
    assert!(first != second && runs(&first) && runs(&second), "each has its own: {first}, {second}");
    one.kill();
    soon("the first model is gone", || !runs(&first));
    assert!(runs(&second));
    two.let_go();
    assert!(!runs(&second), "whoever lets go waits for its end");
}

#[test]
fn a_model_that_cannot_be_fetched_is_refused_with_the_reason() {
    let place = Place::new(false);
    let refused = place.command(env!("CARGO_BIN_EXE_bed")).arg("model").env("BED_STANDIN_FAILS", "1").output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("npm: npm error no such version"), "{words}");
    assert_eq!(fs::read_dir(place.path().join("cache/tertulia-bed")).unwrap().count(), 1, "the jars");
}
