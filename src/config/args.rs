//! The flags of settings; the same ones for every subcommand.

use std::path::PathBuf;

/// Settings as flags. Values are text here: they are checked together with those of the other sources, so that all
/// wrong ones are reported at once and in one form.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// The TOML file to read settings from [env: TERTULIA_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The address that serves the API [env: TERTULIA_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// The address that serves /metrics and /admin [env: TERTULIA_METRICS_LISTEN] [default: 127.0.0.1:9464]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,
    /// The directory of the embedded store [env: TERTULIA_DATA_DIR] [default: ./data]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub data_dir: Option<String>,
    /// The store: embedded or cql [env: TERTULIA_STORE] [default: embedded]
    #[arg(long, global = true, value_name = "STORE")]
    pub store: Option<String>,
    /// The first nodes of the CQL cluster to contact [env: TERTULIA_CQL_NODES]
    #[arg(long, global = true, value_name = "HOST:PORT,...")]
    pub cql_nodes: Option<String>,
    /// The URL at which other servers of the keyspace forward requests to this one [env: TERTULIA_CLUSTER_ADDRESS]
    #[arg(long, global = true, value_name = "URL")]
    pub cluster_address: Option<String>,
    /// Starts even if acknowledged data is missing [env: TERTULIA_ACCEPT_LOSS]
    #[arg(long, global = true)]
    pub accept_loss: bool,
    /// Applies pending CQL migrations at startup [env: TERTULIA_MIGRATE]
    #[arg(long, global = true)]
    pub migrate: bool,
}

impl ConfigArgs {
    /// The given value of a flag; `None` for flags that are not here.
    pub(super) fn get(&self, flag: &str) -> Option<&str> {
        let set = |given: bool| given.then_some("true");
        match flag {
            "--listen" => self.listen.as_deref(),
            "--metrics-listen" => self.metrics_listen.as_deref(),
            "--data-dir" => self.data_dir.as_deref(),
            "--store" => self.store.as_deref(),
            "--cql-nodes" => self.cql_nodes.as_deref(),
            "--cluster-address" => self.cluster_address.as_deref(),
            "--accept-loss" => set(self.accept_loss),
            "--migrate" => set(self.migrate),
            _ => None,
        }
    }
}
