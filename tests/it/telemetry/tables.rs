//! The tables of `docs/TELEMETRY.md`, the dashboard and the alert rules, held against what the program says.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use tertulia::metrics::{self, Sources};
use tertulia::telemetry::waiting::Waiting;
use tower::ServiceExt as _;

use super::receiver::Got;
use crate::support::{TestApp, config};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands in backticks in the first column of the tables under this heading of the page.
fn first_column(heading: &str) -> BTreeSet<String> {
    let page = file("docs/TELEMETRY.md");
    let section = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}")).1;
    let level = heading.split(' ').next().unwrap();
    let ends = |line: &&str| line.starts_with('#') && line.split(' ').next().unwrap().len() <= level.len();
    let lines = section.lines().take_while(|line| !ends(line));
    let rows = lines.filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(str::to_owned));
    names.collect()
}

/// Every name that the code gives to spans and attributes.
fn named() -> (BTreeSet<String>, BTreeSet<String>) {
    let code = file("actors/src/trace/names.rs");
    let literal = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let (spans, attributes) = code.split_once("// Attributes.").unwrap();
    let of =
        |part: &str| part.lines().filter(|line| !line.trim_start().starts_with("//")).filter_map(literal).collect();
    // The one value of an attribute that has a constant too.
    let (spans, mut attributes): (BTreeSet<String>, BTreeSet<String>) = (of(spans), of(attributes));
    attributes.remove("tertulia");
    (spans, attributes)
}

#[test]
fn the_page_describes_every_span_and_attribute_and_no_other() {
    let (spans, attributes) = named();
    let mut described = first_column("## Traces");
    for attribute in first_column("### Attributes") {
        described.remove(&attribute);
    }
    assert!(described.remove("{method} {route}"), "the request");
    assert_eq!(described, spans);
    assert_eq!(first_column("### Attributes"), attributes);
}

/// Fails where a span has a name or an attribute that the page does not describe.
#[track_caller]
pub(super) fn describes(spans: &[Got]) {
    let (names, attributes) = named();
    let methods = ["GET", "HEAD", "POST", "PATCH", "DELETE", "_OTHER"];
    for span in spans {
        let first = span.name.split(' ').next().unwrap();
        // Behind the word may stand what an operator or a convention has named: a route, an agent, an event's type.
        let known = names.contains(&span.name) || names.contains(first) || methods.contains(&first);
        assert!(known, "{} is on no page", span.name);
        for name in span.attributes.keys() {
            assert!(attributes.contains(name), "{name} of {} is on no page", span.name);
        }
    }
}

/// The metrics after a few requests.
async fn scraped() -> String {
    let test = TestApp::new().await;
    test.get("/api/v1/channels/demo").await.expect(200);
    test.get("/api/v1/channels/nowhere").await.expect(404);
    let spans = Some(Arc::new(Waiting::new(config(&[]).otel.batching)));
    let router = metrics::router(Sources { app: test.app.clone(), spans });
    let response = router.oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn families(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_page_describes_every_metric_and_no_other() {
    let mut shown = families(&scraped().await);
    // The memory store counts nothing of its own.
    actors::metrics::StoreMetrics::default().visit(&mut |metric, _| {
        shown.insert(metric.name.to_owned());
    });
    assert_eq!(first_column("## Numbers"), shown);
}

#[tokio::test]
async fn the_dashboard_and_the_rules_ask_for_metrics_that_there_are() {
    let known = first_column("## Numbers");
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let mut asked = 0;
    for path in ["docs/telemetry/dashboard.json", "docs/telemetry/alerts.yml"] {
        let text = file(path);
        let prefixes = ["tertulia_", "http_server_", "tokio_", "process_"];
        let words = text.split(word).filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
        for name in words {
            let family = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let exists = known.contains(name) || family.is_some_and(|family| known.contains(family));
            assert!(exists, "{path} asks for {name}");
            asked += 1;
        }
    }
    assert!(asked > 50, "only {asked} names were found: the search no longer fits the files");
}

/// Runs promtool where it is installed; it says what it finds wrong.
fn promtool(args: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/telemetry")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {args:?}: {words}");
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_where_it_is_installed() {
    promtool(&["check", "metrics"], &scraped().await);
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts.test.yml"], "");
    let dashboard: serde_json::Value = serde_json::from_str(&file("docs/telemetry/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut rules = "groups:\n- name: panels\n  rules:\n".to_owned();
    for (nth, query) in queries.enumerate() {
        let query = query["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$instance", ".*");
        rules.push_str(&format!("  - record: panel:{nth}\n    expr: {}\n", serde_json::Value::from(query)));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("panels.yml");
    fs::write(&path, rules).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()], "");
}
