//! The process is killed at any moment.
//!
//! The parent runs this very test binary as a child, which writes with many tasks and prints each acknowledgement. The
//! parent kills it after a number of lines that the round's seed determines, and checks what is left.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use actors::random::Random;

use schema::embedded::verify;

use super::*;

const CHILD: &str = "TERTULIA_CRASH_CHILD";
const ROUNDS: u64 = 20;
const WRITERS: u64 = 48;

/// Not a test by itself: the child's work. Without the variable it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store = open(Path::new(&dir));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut head = store.load(entity(n), ReadLevel::Settled).await.unwrap().map(|loaded| loaded.head);
                // More commits than any round waits for.
                for _ in 0..1_000_000 {
                    let payload = format!("{n}/{}", head.map_or(0, |head| head.seq) + 1);
                    let next = append(&store, entity(n), head, &payload).await;
                    // One write call, so that lines of tasks do not mix and no line stays in a buffer.
                    std::io::stdout().lock().write_all(format!("ack {n} {}\n", next.seq).as_bytes()).unwrap();
                    head = Some(next);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Runs a child until it has acknowledged `lines` commits, kills it, and reads the rest of its output.
fn acknowledged_until_killed(dir: &Path, lines: u64, newest: &mut BTreeMap<u64, u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::crash::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = 0;
    for line in output.lines().map_while(Result::ok) {
        // The harness's own first line has no line end, so an acknowledgement may follow on it.
        let Some(ack) = line.split_once("ack ").map(|(_, ack)| ack) else { continue };
        let Some((entity, seq)) = ack.split_once(' ') else { continue };
        let entity = entity.parse().unwrap();
        let seq = seq.parse().unwrap();
        let before = newest.insert(entity, seq);
        assert!(before.is_none_or(|before| before < seq), "acknowledged in order");
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= lines, "the child ended by itself after {seen} of {lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_is_there_after_every_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut newest = BTreeMap::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..ROUNDS {
        let lines = 1 + random.below(700);
        acknowledged_until_killed(dir.path(), lines, &mut newest);
        let report = verify(dir.path()).unwrap_or_else(|error| panic!("round {round}, {lines} lines: {error}"));
        assert!(report.is_clean(), "round {round}, {lines} lines: {report:?}");
        let store = open(dir.path());
        for (&n, &seq) in &newest {
            let found = payloads(&store, entity(n)).await;
            assert!(found.len() as u64 >= seq, "round {round}: entity {n} has {} of {seq}", found.len());
            let expected: Vec<_> = (1..=found.len()).map(|seq| format!("{n}/{seq}")).collect();
            assert_eq!(found, expected, "round {round}");
        }
        if round % 5 == 4 {
            store.flush().unwrap();
        }
    }
}
