//! The configuration: every setting from its flag, its environment variable, a file, or its default, in this order.
//! `config.default.toml` documents each one; it is compiled in and is the only list of defaults. All wrong settings are
//! reported at once, each by the name under which it was given.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub mod args;
pub mod attachments;
pub mod cidr;
pub mod cql;
pub mod embeddings;
mod error;
pub mod otel;
mod parse;
mod print;
mod sources;

pub use args::ConfigArgs;
pub use attachments::{AttachmentsConfig, AttachmentsPlace, Bucket};
pub use cidr::{Cidr, CidrList};
pub use cql::Cql;
pub use embeddings::EmbeddingsConfig;
pub use error::{ConfigError, InvalidSetting};
use otel::Otel;
use sources::{Given, Settings};

/// The settings with their defaults and explanations.
const DEFAULTS: &str = include_str!("config.default.toml");

/// The kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A directory of this machine.
    Embedded,
    /// ScyllaDB or Cassandra.
    Cql,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(print::MASK)
    }
}

/// The whole effective configuration; validated, so its users need no checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of the API.
    pub listen: SocketAddr,
    /// The address of `/metrics`; another address or port than `listen`.
    pub metrics_listen: SocketAddr,
    /// Connections open at once; at least 1.
    pub max_connections: usize,
    /// The largest JSON body, in bytes.
    pub max_body_bytes: usize,
    /// The longest a request waits for an agent's reply.
    pub wait_budget: Duration,
    /// Requests per key in one window; at least 1.
    pub rate_limit: u32,
    /// The kind of store.
    pub store: StoreKind,
    /// The directory of the embedded store.
    pub data_dir: PathBuf,
    /// Whether to start although acknowledged data is missing.
    pub accept_loss: bool,
    /// The CQL cluster.
    pub cql: Cql,
    /// The URL at which other servers of the keyspace reach this one; `None`: nowhere.
    pub cluster_address: Option<Arc<str>>,
    /// Networks that users' URLs may reach although they are not public.
    pub egress_allow: CidrList,
    /// The name servers for such URLs; empty: those of the system's configuration.
    pub egress_name_servers: Vec<SocketAddr>,
    /// The storage of attachments' bytes.
    pub attachments: AttachmentsConfig,
    /// The embeddings endpoint for memories; `None`: none.
    pub embeddings: Option<EmbeddingsConfig>,
    /// The log filter, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log_filter: String,
    /// The log format.
    pub log_format: LogFormat,
    /// Which traces are recorded and where they are sent.
    pub otel: Otel,
    /// Sampled traces of callers that are recorded per second.
    pub remote_traces_per_second: u32,
    /// A request that takes longer is recorded even if it was not sampled.
    pub slow_request: Duration,
    /// Whether the list of running stages is kept.
    pub task_list: bool,
    /// The admin key of the first start; `None`: generate one.
    pub bootstrap_api_key: Option<Secret>,
    /// The given values and their sources; secrets are masked already.
    settings: Settings,
}

impl Config {
    /// Reads the process's environment and the file named there or in `args`.
    ///
    /// # Errors
    /// Every wrong setting.
    pub fn from_process(args: &ConfigArgs) -> Result<Self, ConfigError> {
        // A value that is not Unicode cannot be valid, and is reported as its nearest Unicode form.
        let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::load(args, &env, &|path| std::fs::read_to_string(path))
    }

    /// The same with the given environment and file system.
    ///
    /// # Errors
    /// Every wrong setting.
    pub fn load(
        args: &ConfigArgs,
        env: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let (settings, mut wrong) = sources::collect(args, env, read);
        let config = build(settings, env, &mut wrong);
        config.filter(|_| wrong.is_empty()).ok_or(ConfigError(wrong))
    }

    /// The whole configuration as TOML with its explanations, each non-default value with its source; then, as
    /// comments, OpenTelemetry's variables that are set, and what was not understood of them. Secrets are masked.
    #[must_use]
    pub fn effective(&self) -> String {
        print::effective(&self.settings) + &print::variables(&self.otel)
    }
}

/// The largest body that an operator may allow: one that fits a commit, together with up to [`DRAFT_BYTES`] of earlier
/// requests, and as much for the data of its messages beside their words (at most 100 messages, with ids, senders and
/// positions).
///
/// [`DRAFT_BYTES`]: actors::limits::DRAFT_BYTES
const MAX_BODY_BYTES: u64 = (schema::embedded::COMMIT_BYTES - 2 * actors::limits::DRAFT_BYTES) as u64;

/// `None` if `wrong` has the reasons.
fn build(
    mut settings: Settings,
    env: &dyn Fn(&str) -> Option<String>,
    wrong: &mut Vec<InvalidSetting>,
) -> Option<Config> {
    let mut values = Values { settings: &settings, wrong };
    let listen = values.read("server.listen", parse::address);
    let metrics_listen = values.read("server.metrics_listen", parse::address);
    let max_connections = values.read("server.max_connections", |text| parse::number(text, 1..=1_000_000));
    let max_body_bytes = values.read("server.max_body_bytes", |text| parse::number(text, 1024..=MAX_BODY_BYTES));
    let wait_seconds = values.read("server.wait_seconds", |text| parse::number(text, 1..=300));
    let rate_limit = values.read("server.rate_limit", |text| parse::number(text, 1..=u64::from(u32::MAX)));
    let store = values.read("store.kind", parse::store);
    let data_dir = values.read("store.data_dir", parse::path);
    let accept_loss = values.read("store.accept_loss", parse::boolean);
    let cql = cql::read(&mut values, store == Some(StoreKind::Cql));
    let cluster_address = values.read("cluster.address", parse::origin);
    let egress_allow = values.read("egress.allow", str::parse);
    let egress_name_servers = values.read("egress.name_servers", parse::addresses);
    let attachments = attachments::read(&mut values, data_dir.as_deref());
    let embeddings = embeddings::read(&mut values);
    let log_filter = values.read("log.filter", parse::filter);
    let log_format = values.read("log.format", parse::log_format);
    let otlp_endpoint = values.read("telemetry.otlp_endpoint", parse::endpoint);
    let remote_traces = values.read("telemetry.remote_traces_per_second", |text| parse::number(text, 0..=1_000_000));
    let slow_millis = values.read("telemetry.slow_millis", |text| parse::number(text, 1..=3_600_000));
    let task_list = values.read("telemetry.task_list", parse::boolean);
    let bootstrap_api_key = values.read("bootstrap.api_key", parse::api_key);

    let otel = Otel::read(env, otlp_endpoint.as_ref().and_then(Option::as_deref), values.wrong);

    if listen.is_some_and(|listen| listen.port() != 0) && listen == metrics_listen {
        values.refuse("server.metrics_listen", "an address or port other than that of the API");
    }
    settings.mask_secrets();
    Some(Config {
        listen: listen?,
        metrics_listen: metrics_listen?,
        max_connections: usize::try_from(max_connections?).ok()?,
        max_body_bytes: usize::try_from(max_body_bytes?).ok()?,
        wait_budget: Duration::from_secs(wait_seconds?),
        rate_limit: u32::try_from(rate_limit?).ok()?,
        store: store?,
        data_dir: data_dir?,
        accept_loss: accept_loss?,
        cql: cql?,
        cluster_address: cluster_address?,
        egress_allow: egress_allow?,
        egress_name_servers: egress_name_servers?,
        attachments: attachments?,
        embeddings: embeddings?,
        log_filter: log_filter?,
        log_format: log_format?,
        otel: otlp_endpoint.map(|_| otel)?,
        remote_traces_per_second: u32::try_from(remote_traces?).ok()?,
        slow_request: Duration::from_millis(slow_millis?),
        task_list: task_list?,
        bootstrap_api_key: bootstrap_api_key?,
        settings,
    })
}

/// Reads values and collects their errors.
struct Values<'a> {
    settings: &'a Settings,
    wrong: &'a mut Vec<InvalidSetting>,
}

impl Values<'_> {
    fn read<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        // A key that is not in the defaults was reported when they were collected.
        let Given { text, .. } = self.settings.get(key)?;
        parse(text.trim()).map_err(|allowed| self.refuse(key, allowed)).ok()
    }

    fn refuse(&mut self, key: &'static str, allowed: impl Into<String>) {
        self.wrong.extend(self.settings.refused(key, allowed.into()));
    }
}

#[cfg(test)]
mod tests;
