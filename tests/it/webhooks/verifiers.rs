//! Checks deliveries with the verifiers that the authors of Standard Webhooks publish for other languages.
//!
//! The verifiers are in the directory that `TERTULIA_VERIFIERS` names, or else in `target/verifiers`: `python`, a
//! directory for Python's path, and `node_modules`. `.ci/run` puts them there. A test without its verifier says so and
//! is skipped, unless `TERTULIA_VERIFIERS` is set.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{ENDPOINTS, LOOPBACK, Receiver, endpoint};
use crate::support::TestApp;
use crate::support::origin::Heard;
use crate::support::setting::{now, say};

/// The language of a verifier.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verifier {
    Python,
    Node,
}

impl Verifier {
    /// The command with its library, without a script; `None` if one of the two is missing.
    fn command(self) -> Option<Command> {
        let asked_for = std::env::var_os("TERTULIA_VERIFIERS").map(PathBuf::from);
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/target/verifiers");
        let place = asked_for.clone().unwrap_or_else(|| root.into());
        let (program, option, path) = match self {
            Self::Python => ("python3", "-c", ("PYTHONPATH", place.join("python"))),
            Self::Node => ("node", "-e", ("NODE_PATH", place.join("node_modules"))),
        };
        let command = || {
            let mut command = Command::new(program);
            command.env(path.0, &path.1);
            command
        };
        let import = if let Self::Python = self { "import standardwebhooks" } else { "require('standardwebhooks')" };
        let is_there = command().args([option, import]).output().is_ok_and(|tried| tried.status.success());
        assert!(is_there || asked_for.is_none(), "{self:?}: standardwebhooks is not at {}", place.display());
        is_there.then(command)
    }

    /// Has all requests verified, each with the secret that `secret` chooses. `false`: the verifier is not installed.
    pub(super) fn accepts(self, heard: &[Heard], secret: impl Fn(&Heard) -> String) -> bool {
        let Some(mut command) = self.command() else {
            say(&format!("skipped: the {self:?} verifier, standardwebhooks is not installed"));
            return false;
        };
        let line = |heard: &Heard| {
            let [id, timestamp, signature] =
                ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| heard.header(name));
            json!({"secret": secret(heard), "id": id, "timestamp": timestamp, "signature": signature,
                "body": STANDARD.encode(&heard.body)})
            .to_string()
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("requests");
        fs::write(&file, heard.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let script = match self {
            Self::Python => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/webhooks/verify.py"),
            Self::Node => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/webhooks/verify.cjs"),
        };
        let output = command.arg(script).arg(&file).output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{self:?}: {words} {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(words.trim(), format!("{} verified, {} refused when changed", heard.len(), heard.len()), "{self:?}");
        true
    }
}

/// Checks both forms, while a secret rotates, with text beyond ASCII.
async fn verified_by(verifier: Verifier) {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    // The verifiers refuse requests that are older than five minutes.
    app.clock.set(actors::clock::Millis(now()));
    let events = json!(["message.created"]);
    let standard = endpoint(&app, json!({"url": receiver.origin.url("/a"), "events": events})).await;
    let cloud = json!({"url": receiver.origin.url("/b"), "events": events, "format": "cloudevents"});
    let cloud = endpoint(&app, cloud).await;
    let post = async |text: &str| {
        app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": text})).await.expect(201);
    };
    post("plain").await;
    post("Grüße \u{1f980} \\ \" \u{2028}").await;
    receiver.heard(4).await;
    let rotate = format!("{ENDPOINTS}/{}/rotate-secret", standard["id"].as_str().unwrap());
    let rotated = app.post(rotate).await.expect(200);
    post("signed twice").await;
    let heard = receiver.heard(6).await;
    let old = |heard: &Heard| {
        let of = if heard.path() == "/a" { &standard } else { &cloud };
        of["secret"].as_str().unwrap().to_owned()
    };
    if !verifier.accepts(&heard, old) {
        return;
    }
    let last: Vec<Heard> = heard.into_iter().skip(4).filter(|heard| heard.path() == "/a").collect();
    assert_eq!(last[0].header("webhook-signature").split(' ').count(), 2);
    assert!(verifier.accepts(&last, |_| rotated["secret"].as_str().unwrap().to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_library_of_standard_webhooks_verifies_deliveries() {
    verified_by(Verifier::Python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_library_of_standard_webhooks_verifies_deliveries() {
    verified_by(Verifier::Node).await;
}
