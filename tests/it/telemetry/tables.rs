//! Compares the tables of `docs/TELEMETRY.md`, the dashboard and the alert rules with the program's telemetry.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use actors::metrics::{Label as _, ModelError};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use tertulia::metrics::{self, Sources};
use tertulia::telemetry::span_queue::SpanQueue;
use tower::ServiceExt as _;

use super::receiver::Got;
use crate::support::{TestApp, config};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words in backticks in the first column of the tables under this heading of the page.
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

/// The rows of the table under this heading: the names in their first column, and the whole row.
fn rows(heading: &str) -> Vec<(String, String)> {
    let page = file("docs/TELEMETRY.md");
    let section = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}")).1;
    let section = section.split("\n## ").next().unwrap();
    let named = |row: &str| Some((row.split('`').nth(1)?.to_owned(), row.to_owned()));
    section.lines().filter(|line| line.starts_with("| `")).filter_map(named).collect()
}

/// The titles of the dashboard's panels.
fn titles() -> BTreeSet<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&file("docs/telemetry/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    panels.map(|panel| panel["title"].as_str().unwrap().to_owned()).collect()
}

/// An attribute on one kind of span, as the page describes it.
struct Row {
    name: String,
    on: String,
    /// Whether only some spans of that kind have it.
    is_conditional: bool,
}

/// The rows of the table of attributes, one for each attribute and kind of span.
fn attribute_rows() -> Vec<Row> {
    let page = file("docs/TELEMETRY.md");
    let section = page.split_once("\n### Attributes\n").unwrap().1.split("\n## ").next().unwrap().to_owned();
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let is_conditional = cells[3].split(|c: char| !c.is_alphabetic()).any(|word| word == "where");
        for name in cells[1].split('`').skip(1).step_by(2) {
            for on in cells[2].split(", ") {
                rows.push(Row { name: name.to_owned(), on: on.to_owned(), is_conditional });
            }
        }
    }
    rows
}

/// The page's name for the kind of this span.
fn kind_of(name: &str) -> &'static str {
    match name.split(' ').next().unwrap() {
        "wait" => "wait",
        "process" => "process",
        "commit" => "commit",
        "load" => "load",
        "invoke_agent" => "agent",
        "chat" => "model",
        "execute_tool" => "tool",
        "deliver" => "delivery",
        "embeddings" => "embeddings",
        "fetch" => "fetch",
        "forward" => "forwarding",
        "read" | "write" => "file",
        "alarm" => "alarm",
        _ => "request",
    }
}

/// Whether this span must have an attribute that only some spans have, by the page's condition.
fn is_due(name: &str, span: &Got) -> bool {
    let is = |name: &str, value: &str| span.attributes.get(name).is_some_and(|known| known == value);
    match name {
        "messaging.message.id" if span.name.starts_with("deliver message.") => true,
        "messaging.message.id" => span.name == "POST /api/v1/messages" && !span.failed,
        "messaging.message.conversation_id" => span.attributes.contains_key("messaging.message.id"),
        "http.route" | "url.path" => span.name.contains(' '),
        "http.response.status_code" => !span.failed || span.attributes.contains_key("tertulia.problem.code"),
        "tertulia.load.records" => !span.failed,
        "tertulia.store.sync_ms" => is("tertulia.outcome", "committed"),
        "tertulia.store.batch_commits" => is("tertulia.outcome", "committed") && is("db.system.name", "fjall"),
        "tertulia.store.attempts" => is("tertulia.outcome", "committed") && is("db.system.name", "cassandra"),
        "db.namespace" | "cassandra.consistency.level" => is("db.system.name", "cassandra"),
        "tertulia.turn.waited_ms" | "gen_ai.provider.name" | "gen_ai.agent.name" => !span.failed,
        "gen_ai.response.model" | "gen_ai.usage.input_tokens" | "gen_ai.usage.output_tokens" => !span.failed,
        "gen_ai.request.model" => span.name.contains(' '),
        "server.address" | "server.port" => is("gen_ai.provider.name", "openai"),
        "tertulia.endpoint.id" => is("tertulia.delivery.receiver", "endpoint"),
        "error.type" => span.failed,
        _ => false,
    }
}

/// Every name that the code gives to spans and attributes.
fn named() -> (BTreeSet<String>, BTreeSet<String>) {
    let code = file("actors/src/trace/names.rs");
    let literal = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let (spans, rest) = code.split_once("// Attributes.").unwrap();
    let (attributes, _metrics) = rest.split_once("// Metrics").unwrap();
    let of =
        |part: &str| part.lines().filter(|line| !line.trim_start().starts_with("//")).filter_map(literal).collect();
    // One value of an attribute is a constant too.
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
    let methods = ["GET", "HEAD", "POST", "PATCH", "DELETE", "HTTP"];
    for span in spans {
        let first = span.name.split(' ').next().unwrap();
        // After the first word there may be a name from an operator or a convention: a route, an agent, an event's
        // type.
        let known = names.contains(&span.name) || names.contains(first) || methods.contains(&first);
        assert!(known, "{} is on no page", span.name);
        for name in span.attributes.keys() {
            assert!(attributes.contains(name), "{name} of {} is on no page", span.name);
        }
    }
    complete(spans);
}

/// Fails if a span lacks an attribute that the page requires, or has one that the page gives only to other kinds.
#[track_caller]
fn complete(spans: &[Got]) {
    let rows = attribute_rows();
    for span in spans {
        let kind = kind_of(&span.name);
        for row in rows.iter().filter(|row| row.on == kind && (!row.is_conditional || is_due(&row.name, span))) {
            assert!(span.attributes.contains_key(&row.name), "{} is not on {span:?}", row.name);
        }
        for name in span.attributes.keys() {
            let is_told = rows.iter().any(|row| row.on == kind && row.name == *name);
            assert!(is_told, "the page does not say that {name} is on {span:?}");
        }
    }
}

#[test]
fn each_row_of_attributes_names_kinds_of_spans_that_there_are() {
    let kinds = [
        &["request", "process", "commit", "load", "agent", "model", "forwarding"][..],
        &["tool", "embeddings", "fetch", "file", "delivery", "alarm"],
    ]
    .concat();
    let rows = attribute_rows();
    for row in &rows {
        assert!(kinds.contains(&&*row.on), "{} is on {}", row.name, row.on);
    }
    for kind in kinds {
        assert!(rows.iter().any(|row| row.on == kind && !row.is_conditional), "nothing is always on {kind}");
    }
}

/// The metrics page after a few requests.
async fn scraped() -> String {
    let test = TestApp::new().await;
    test.get("/api/v1/channels/demo").await.expect(200);
    test.get("/api/v1/channels/nowhere").await.expect(404);
    let spans = Some(Arc::new(SpanQueue::new(config(&[]).otel.batching)));
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
    // The memory store has no metrics of its own.
    actors::metrics::StoreMetrics::default().visit(&mut |metric, _| {
        shown.insert(metric.name.to_owned());
    });
    assert_eq!(first_column("## Numbers"), shown);
}

#[test]
fn the_metric_of_model_calls_knows_the_code_of_each_failure() {
    let code = file("src/models/fault.rs");
    let codes = code.split_once("fn code(").unwrap().1.split_once("\n    }\n").unwrap().0;
    let codes: BTreeSet<&str> = codes.lines().filter_map(|line| line.split('"').nth(1)).collect();
    // What a chat's endpoint never ends with: success, a builtin agent's failure, those of embeddings, unknown codes.
    let others = ["", "builtin_failure", "invalid_answer", "unavailable", "_OTHER"];
    let known = ModelError::VALUES.iter().copied().filter(|value| !others.contains(value));
    assert_eq!(codes, known.collect());
}

#[tokio::test]
async fn the_dashboard_and_the_rules_ask_for_metrics_that_there_are() {
    let known = first_column("## Numbers");
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let mut asked = 0;
    for path in ["docs/telemetry/dashboard.json", "docs/telemetry/alerts.yml"] {
        let text = file(path);
        let prefixes = ["tertulia_", "http_server_", "gen_ai_client_", "tokio_", "process_"];
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

/// Metrics on no panel. Alerts compare the first three, and the others are for whoever looks closer.
const ON_NO_PANEL: [&str; 6] = [
    "tertulia_up",
    "tertulia_store_queued_bytes",
    "process_max_fds",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "tokio_worker_parks_total",
];

#[test]
fn every_metric_is_on_a_panel_or_declared_to_need_none() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("docs/telemetry/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = queries.map(|query| query["expr"].as_str().unwrap()).collect();
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let asked: BTreeSet<&str> = queries.iter().flat_map(|query| query.split(word)).collect();
    for name in first_column("## Numbers") {
        let is_shown =
            ["", "_bucket", "_count", "_sum"].iter().any(|suffix| asked.contains(&*format!("{name}{suffix}")));
        assert_eq!(is_shown, !ON_NO_PANEL.contains(&&*name), "{name}");
    }
}

/// Other services have metrics of these names too.
const NAMES_OF_ALL: [&str; 4] = ["http_server_", "gen_ai_", "tokio_", "process_"];

#[test]
fn rules_select_the_job_wherever_others_use_the_same_name() {
    let rules = file("docs/telemetry/alerts.yml");
    let mut selected = 0;
    let is_text = |line: &str| ["#", "summary:", "look:", "runbook:"].iter().any(|key| line.trim().starts_with(key));
    for line in rules.lines().filter(|line| !is_text(line)) {
        for at in NAMES_OF_ALL.iter().flat_map(|prefix| line.match_indices(prefix)).map(|(at, _)| at) {
            let rest = line[at..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
            assert!(rest.starts_with("{job=\"tertulia\""), "not only of our job: {line}");
            selected += 1;
        }
    }
    assert!(selected > 5, "only {selected} were found: the search no longer fits the file");
}

/// Whether a dashboard query shows durations.
fn times(query: &str) -> bool {
    query.starts_with("histogram_quantile(") && query.contains("_seconds_bucket{")
}

#[test]
fn every_panel_of_times_leads_to_traces() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("docs/telemetry/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries: Vec<_> = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten()).collect();
    for query in &queries {
        assert_eq!(query["exemplar"], times(query["expr"].as_str().unwrap()), "{}", query["expr"]);
    }
    assert!(queries.iter().filter(|query| query["exemplar"] == true).count() > 10);
}

#[test]
fn every_alert_has_a_test_and_a_row_and_names_lines_that_exist() {
    let rules = file("docs/telemetry/alerts.yml");
    let tests = file("docs/telemetry/alerts.test.yml");
    let names = |text: &str, word: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.split_once(word)).map(|(_, name)| name.trim().to_owned()).collect()
    };
    assert_eq!(names(&rules, "- alert:"), names(&tests, "alertname:"));
    assert_eq!(names(&rules, "- alert:"), first_column("## Alerts"));
    let logged = LOGS.map(file).concat();
    // Quoted phrases are log lines; a single quoted word is a span.
    for line in rules.split('`').skip(1).step_by(2).filter(|words| words.contains(' ')) {
        assert!(logged.contains(&format!("\"{line}")), "nothing logs `{line}`");
    }
}

/// The sources of the log lines that the rules and their rows name.
const LOGS: [&str; 11] = [
    "schema/src/embedded/space.rs",
    "src/models.rs",
    "src/http/forwarding.rs",
    "actors/src/host/telemetry.rs",
    "actors/src/outbox/attempt_telemetry.rs",
    "src/http/context.rs",
    "src/http/refusal.rs",
    "src/serve.rs",
    "src/serve/start.rs",
    "src/telemetry/export.rs",
    "src/telemetry/push.rs",
];

#[test]
fn every_row_of_an_alert_leads_to_panels_and_lines_that_there_are() {
    let panels = titles();
    let logged = LOGS.map(file).concat();
    for (alert, row) in rows("## Alerts") {
        let asked: Vec<&str> = row.split('“').skip(1).filter_map(|rest| rest.split('”').next()).collect();
        assert!(!asked.is_empty(), "{alert} leads to no panel");
        for panel in asked {
            assert!(panels.contains(panel), "{alert}: the dashboard has no panel {panel}");
        }
        for line in row.split("lines `").skip(1).filter_map(|rest| rest.split('`').next()) {
            assert!(logged.contains(&format!("\"{line}")), "{alert}: nothing logs `{line}`");
        }
    }
}

/// The program that checks rules: the one that `TERTULIA_PROMTOOL` names, or an installed one.
fn checker() -> Option<PathBuf> {
    let asked_for = std::env::var_os("TERTULIA_PROMTOOL").map(PathBuf::from);
    let program = asked_for.clone().unwrap_or_else(|| "promtool".into());
    let is_there = Command::new(&program).arg("--version").output().is_ok_and(|tried| tried.status.success());
    assert!(is_there || asked_for.is_none(), "TERTULIA_PROMTOOL: there is no promtool at {}", program.display());
    is_there.then_some(program)
}

/// Runs promtool, which reports what is wrong.
fn promtool(program: &Path, args: &[&str], input: &str) {
    let mut command = Command::new(program);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/telemetry")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {args:?}: {words}");
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_where_it_is_installed() {
    let Some(program) = checker() else {
        // Bypasses the test runner's capture.
        let line = b"skipped: the alert rules and their tests: promtool is not installed\n";
        return std::io::stderr().write_all(line).unwrap();
    };
    promtool(&program, &["check", "metrics"], &scraped().await);
    promtool(&program, &["check", "rules", "alerts.yml"], "");
    promtool(&program, &["test", "rules", "alerts.test.yml"], "");
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
    promtool(&program, &["check", "rules", path.to_str().unwrap()], "");
}
