//! A server that stops is observed until everything in it has ended.

use std::thread;
use std::time::Duration;

use super::observed::Observed;
use crate::models::PATH;
use crate::support::client::Client;
use crate::support::until::seen_here;

#[test]
fn the_metrics_of_a_server_that_stops_can_be_scraped_until_its_turns_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Observed::start(&dir.path().join("data"), &[]);
    let mut client = Client::connect(&server.address).unwrap();
    let slow = r#"{"builtin": {"behaviour": "echo", "latencyMs": 4000}}"#;
    assert_eq!(client.send("PATCH", "/api/v1/agents/echo", None, slow).unwrap().status, 200);
    let mut waits = Client::connect(&server.address).unwrap();
    let body = r#"{"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hello"}}}"#;
    let answer = thread::spawn(move || waits.send("POST", PATH, None, body).unwrap());
    seen_here(|| (server.scrape()["tertulia_running_turns"] == 1).then_some(()));
    server.ask_to_stop();
    // A connection that is accepted in the first moment is still served.
    seen_here(|| {
        let mut client = Client::connect(&server.address).ok()?;
        client.send("GET", "/api/v1/channels/demo", None, "").ok().filter(|answer| answer.status == 503)
    });
    let numbers = server.scrape();
    let seen = ["tertulia_running_turns", "tertulia_http_problems_total"].map(|name| numbers[name]);
    assert!(seen[0] == 1 && seen[1] >= 1, "{numbers:?}");
    assert_eq!(answer.join().unwrap().status, 200);
    let (_, took) = server.stop();
    assert!(took < Duration::from_secs(20), "{took:?}");
}
