//! The sources of a setting's value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::args::ConfigArgs;
use super::error::InvalidSetting;
use super::print::{MASK, hidden, without_userinfo};

/// The TOML type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
    /// Strings; comma-separated in flags and the environment.
    List,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
            Self::List => "an array of strings",
        }
    }
}

/// A setting's names and form.
#[derive(Debug)]
pub(super) struct Setting {
    /// Table and key in a file.
    pub(super) key: &'static str,
    pub(super) flag: Option<&'static str>,
    pub(super) env: &'static str,
    pub(super) kind: Kind,
    pub(super) secret: bool,
}

const fn setting(key: &'static str, flag: Option<&'static str>, env: &'static str, kind: Kind) -> Setting {
    Setting { key, flag, env, kind, secret: false }
}

const fn secret(key: &'static str, env: &'static str) -> Setting {
    Setting { key, flag: None, env, kind: Kind::Text, secret: true }
}

/// Every setting; a test compares them with `config.default.toml`.
pub(super) static SETTINGS: &[Setting] = &[
    setting("server.listen", Some("--listen"), "TERTULIA_LISTEN", Kind::Text),
    setting("server.metrics_listen", Some("--metrics-listen"), "TERTULIA_METRICS_LISTEN", Kind::Text),
    setting("server.max_connections", None, "TERTULIA_MAX_CONNECTIONS", Kind::Integer),
    setting("server.max_body_bytes", None, "TERTULIA_MAX_BODY_BYTES", Kind::Integer),
    setting("server.wait_seconds", None, "TERTULIA_WAIT_SECONDS", Kind::Integer),
    setting("server.rate_limit", None, "TERTULIA_RATE_LIMIT", Kind::Integer),
    setting("store.kind", Some("--store"), "TERTULIA_STORE", Kind::Text),
    setting("store.data_dir", Some("--data-dir"), "TERTULIA_DATA_DIR", Kind::Text),
    setting("store.accept_loss", Some("--accept-loss"), "TERTULIA_ACCEPT_LOSS", Kind::Boolean),
    setting("cql.nodes", Some("--cql-nodes"), "TERTULIA_CQL_NODES", Kind::List),
    setting("cql.keyspace", None, "TERTULIA_CQL_KEYSPACE", Kind::Text),
    setting("cql.migrate", Some("--migrate"), "TERTULIA_MIGRATE", Kind::Boolean),
    setting("cql.user", None, "TERTULIA_CQL_USER", Kind::Text),
    Setting { secret: true, ..setting("cql.password", None, "TERTULIA_CQL_PASSWORD", Kind::Text) },
    setting("cql.tls", None, "TERTULIA_CQL_TLS", Kind::Boolean),
    setting("cql.ca_file", None, "TERTULIA_CQL_CA_FILE", Kind::Text),
    setting("cql.datacenter", None, "TERTULIA_CQL_DATACENTER", Kind::Text),
    setting("cql.consistency", None, "TERTULIA_CQL_CONSISTENCY", Kind::Text),
    setting("cql.replication", None, "TERTULIA_CQL_REPLICATION", Kind::List),
    setting("cluster.address", Some("--cluster-address"), "TERTULIA_CLUSTER_ADDRESS", Kind::Text),
    setting("egress.allow", None, "TERTULIA_EGRESS_ALLOW", Kind::List),
    setting("egress.name_servers", None, "TERTULIA_EGRESS_DNS", Kind::List),
    setting("attachments.store", None, "TERTULIA_ATTACHMENTS", Kind::Text),
    setting("attachments.directory", None, "TERTULIA_ATTACHMENTS_DIR", Kind::Text),
    setting("attachments.s3_bucket", None, "TERTULIA_ATTACHMENTS_S3_BUCKET", Kind::Text),
    setting("attachments.s3_region", None, "TERTULIA_ATTACHMENTS_S3_REGION", Kind::Text),
    setting("attachments.s3_endpoint", None, "TERTULIA_ATTACHMENTS_S3_ENDPOINT", Kind::Text),
    setting("attachments.s3_access_key_id", None, "TERTULIA_ATTACHMENTS_S3_ACCESS_KEY_ID", Kind::Text),
    secret("attachments.s3_secret_access_key", "TERTULIA_ATTACHMENTS_S3_SECRET_ACCESS_KEY"),
    setting("embeddings.url", None, "TERTULIA_EMBEDDINGS_URL", Kind::Text),
    setting("embeddings.model", None, "TERTULIA_EMBEDDINGS_MODEL", Kind::Text),
    secret("embeddings.api_key", "TERTULIA_EMBEDDINGS_API_KEY"),
    setting("log.filter", None, "TERTULIA_LOG", Kind::Text),
    setting("log.format", None, "TERTULIA_LOG_FORMAT", Kind::Text),
    setting("telemetry.otlp_endpoint", None, "OTEL_EXPORTER_OTLP_ENDPOINT", Kind::Text),
    setting("telemetry.remote_traces_per_second", None, "TERTULIA_REMOTE_TRACES_PER_SECOND", Kind::Integer),
    setting("telemetry.slow_millis", None, "TERTULIA_SLOW_MILLIS", Kind::Integer),
    setting("telemetry.task_list", None, "TERTULIA_TASK_LIST", Kind::Boolean),
    secret("bootstrap.api_key", "TERTULIA_BOOTSTRAP_API_KEY"),
];

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File { key: &'static str, path: PathBuf },
    Environment(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { key, path } => write!(f, "{key} in {}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// The effective value, as text, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The effective value of every setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<&'static str, Given>);

impl Settings {
    pub(super) fn get(&self, key: &str) -> Option<&Given> {
        self.0.get(key)
    }

    /// The setting's value is wrong.
    pub(super) fn refused(&self, key: &str, allowed: String) -> Option<InvalidSetting> {
        let setting = find(key)?;
        let given = self.get(key)?;
        let value = (!setting.secret).then(|| hidden(&given.text).into_owned());
        let name = match &given.origin {
            // It is missing.
            Origin::Default => setting.flag.unwrap_or(setting.env).to_owned(),
            origin => origin.to_string(),
        };
        Some(InvalidSetting { name, value, allowed })
    }

    /// From here on a secret cannot be printed by mistake.
    pub(super) fn mask_secrets(&mut self) {
        for setting in SETTINGS {
            let Some(given) = self.0.get_mut(setting.key).filter(|given| !given.text.is_empty()) else { continue };
            if setting.secret {
                MASK.clone_into(&mut given.text);
            } else if let Cow::Owned(masked) = without_userinfo(&given.text) {
                given.text = masked;
            }
        }
    }
}

/// Reads every source, and reports unreadable ones.
pub(super) fn collect(
    args: &ConfigArgs,
    env: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> (Settings, Vec<InvalidSetting>) {
    let mut wrong = Vec::new();
    // An empty value counts as absent, wherever it is given.
    let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    let flag = |name: &str| args.get(name).filter(|value| !value.trim().is_empty());
    let named = match &args.config {
        Some(path) => Some(("--config", path.clone())),
        None => env("TERTULIA_CONFIG").map(|path| ("TERTULIA_CONFIG", PathBuf::from(path))),
    };
    let mut settings = BTreeMap::new();
    parse_file(super::DEFAULTS, None, &mut settings, &mut wrong);
    if let Some((name, path)) = named {
        match read(&path) {
            Ok(text) => parse_file(&text, Some(&path), &mut settings, &mut wrong),
            Err(error) => wrong.push(InvalidSetting {
                name: name.to_owned(),
                value: Some(path.display().to_string()),
                allowed: format!("a readable file ({error})"),
            }),
        }
    }
    for setting in SETTINGS {
        let from_flag =
            setting.flag.and_then(|name| Some(Given { text: flag(name)?.to_owned(), origin: Origin::Flag(name) }));
        let from_env = || Some(Given { text: env(setting.env)?, origin: Origin::Environment(setting.env) });
        if let Some(given) = from_flag.or_else(from_env) {
            settings.insert(setting.key, given);
        }
    }
    (Settings(settings), wrong)
}

/// Puts a file's values over the existing ones; `path` is `None` for the defaults.
fn parse_file(
    text: &str,
    path: Option<&Path>,
    settings: &mut BTreeMap<&'static str, Given>,
    wrong: &mut Vec<InvalidSetting>,
) {
    let shown = path.map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            // The error's own text quotes the line, which may hold a secret.
            let error: toml::de::Error = error;
            let line = error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
            wrong.push(InvalidSetting::missing(format!("{shown}, line {line}"), format!("TOML ({})", error.message())));
            return;
        }
    };
    let mut leaves = Vec::new();
    flatten(String::new(), table, &mut leaves);
    for (key, value) in leaves {
        let Some(setting) = find(&key) else {
            let known: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
            // The value is not shown: this may be a secret's misspelt name.
            wrong.push(InvalidSetting::missing(format!("{key} in {shown} is not a known setting"), known.join(", ")));
            continue;
        };
        match as_text(setting.kind, &value) {
            Some(text) if text.is_empty() && path.is_some() => {}
            Some(text) => {
                let origin = match path {
                    None => Origin::Default,
                    Some(path) => Origin::File { key: setting.key, path: path.to_owned() },
                };
                settings.insert(setting.key, Given { text, origin });
            }
            None => wrong.push(InvalidSetting {
                name: format!("{key} in {shown}"),
                value: (!setting.secret).then(|| hidden(&shown_value(&value)).into_owned()),
                allowed: setting.kind.name().to_owned(),
            }),
        }
    }
}

fn flatten(prefix: String, table: toml::Table, leaves: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(table) if find(&key).is_none() => flatten(key, table, leaves),
            value => leaves.push((key, value)),
        }
    }
}

/// A value of the wrong type, as far as one line can show it.
fn shown_value(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(truth) => truth.to_string(),
        other => other.type_str().to_owned(),
    }
}

/// `None` if the value has another type.
fn as_text(kind: Kind, value: &toml::Value) -> Option<String> {
    match (kind, value) {
        (Kind::Text, toml::Value::String(text)) => Some(text.trim().to_owned()),
        (Kind::Integer, toml::Value::Integer(number)) => Some(number.to_string()),
        (Kind::Boolean, toml::Value::Boolean(truth)) => Some(truth.to_string()),
        (Kind::List, toml::Value::Array(items)) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}
