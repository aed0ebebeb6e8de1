//! The examples of the documentation, run as they are.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

use crate::support::ADMIN_KEY;
use crate::support::program::Server;

/// The output that a page promises for its example.
fn promised(page: &str) -> String {
    let block = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("the page shows what is printed").to_owned()
}

#[test]
fn an_agent_asks_people_before_it_acts() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let mut example = Command::new("sh");
    example.arg(examples.join("approval.sh")).env("KEY", ADMIN_KEY);
    let ended = example.env("TERTULIA", format!("http://{}", server.address)).output().unwrap();
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{printed}{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(printed, promised(&std::fs::read_to_string(examples.join("approval.md")).unwrap()));
    assert_eq!(server.terminate(), Some(0));
}
